//! Descriptions: what is in a picture, in words and back.

use std::fmt;
use std::str::FromStr;
use thiserror::Error;

/// An attribute with a word for each of its values.
macro_rules! words {
    ($(#[$doc:meta])* $name:ident: $kind:literal { $($(#[$variant_doc:meta])* $variant:ident = $word:literal),+ $(,)? }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum $name { $($(#[$variant_doc])* $variant),+ }

        impl $name {
            /// All values, in order.
            pub const ALL: &[$name] = &[$($name::$variant),+];

            /// The word for it.
            pub fn word(self) -> &'static str {
                match self { $($name::$variant => $word),+ }
            }

            fn parse(word: &str) -> Result<Self, SceneError> {
                Self::ALL.iter().copied().find(|value| value.word() == word).ok_or_else(|| SceneError::UnknownWord {
                    kind: $kind,
                    word: word.to_owned(),
                    known: [$($word),+].join(", "),
                })
            }
        }
    };
}

words! {
    /// One of the 2 x 2 places, in reading order.
    Place: "place" {
        /// Upper left quadrant.
        TopLeft = "top left",
        /// Upper right quadrant.
        TopRight = "top right",
        /// Lower left quadrant.
        BottomLeft = "bottom left",
        /// Lower right quadrant.
        BottomRight = "bottom right",
    }
}
words! {
    /// Size of an object.
    Size: "size" {
        /// 4.2 pixels from the centre to each side, in a picture of 32.
        Small = "small",
        /// 7.2 pixels.
        Big = "big",
    }
}
words! {
    /// Colour of an object.
    Color: "colour" {
        /// Red.
        Red = "red",
        /// Green.
        Green = "green",
        /// Blue.
        Blue = "blue",
        /// Yellow.
        Yellow = "yellow",
        /// Purple.
        Purple = "purple",
        /// Black.
        Black = "black",
    }
}
words! {
    /// Form of an object.
    Form: "form" {
        /// A disc.
        Circle = "circle",
        /// A square, upright.
        Square = "square",
        /// A triangle, point up.
        Triangle = "triangle",
    }
}

/// One thing in a picture.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Object {
    /// Where.
    pub place: Place,
    /// How big.
    pub size: Size,
    /// Which colour.
    pub color: Color,
    /// Which form.
    pub form: Form,
}

/// What is in a picture: one or two objects in different places, in reading order. 7,920 of them exist.
///
/// Its text form is the caption: `small red circle top left, big blue square bottom right`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Scene {
    objects: Vec<Object>,
}

/// Why a text or a list of objects is not a scene.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum SceneError {
    /// Not one or two objects.
    #[error("{0} objects, where a scene has 1 or 2")]
    Count(usize),
    /// Two objects in one place.
    #[error("two objects {}", .0.word())]
    SamePlace(Place),
    /// Objects of a caption that are not in reading order.
    #[error("objects out of order; top comes before bottom, left before right")]
    Order,
    /// Not five words.
    #[error("{phrase:?} is not five words such as `small red circle top left`")]
    Words { phrase: String },
    /// A word that is not a value of its attribute.
    #[error("{word:?} is not a valid {kind}; known are {known}")]
    UnknownWord { kind: &'static str, word: String, known: String },
}

impl Object {
    fn all_at(place: Place) -> impl Iterator<Item = Object> {
        Size::ALL.iter().flat_map(move |&size| {
            Color::ALL.iter().flat_map(move |&color| {
                Form::ALL.iter().map(move |&form| Object { place, size, color, form })
            })
        })
    }
}

impl Scene {
    /// A scene of these objects, in any order.
    ///
    /// # Errors
    /// When they are not one or two, or share a place.
    pub fn new(mut objects: Vec<Object>) -> Result<Self, SceneError> {
        objects.sort();
        match objects.as_slice() {
            [_] => {}
            [a, b] if a.place == b.place => return Err(SceneError::SamePlace(a.place)),
            [_, _] => {}
            other => return Err(SceneError::Count(other.len())),
        }
        Ok(Scene { objects })
    }

    /// The objects, in reading order of their places.
    pub fn objects(&self) -> &[Object] {
        &self.objects
    }

    /// Every scene there is, in a fixed order.
    pub fn all() -> Vec<Scene> {
        let mut scenes = Vec::new();
        for (i, &first) in Place::ALL.iter().enumerate() {
            for a in Object::all_at(first) {
                scenes.push(Scene { objects: vec![a] });
                for &second in &Place::ALL[i + 1..] {
                    scenes.extend(Object::all_at(second).map(|b| Scene { objects: vec![a, b] }));
                }
            }
        }
        scenes
    }

    /// Whether this description is kept from training: a tenth is, by a hash of the caption, so that every set ever
    /// written agrees on it.
    pub fn is_held_out(&self) -> bool {
        let fnv = self.to_string().bytes().fold(0xCBF2_9CE4_8422_2325u64, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01B3)
        });
        // FNV-1a's low bits follow the last letters; the finaliser of MurmurHash3 spreads them.
        let mixed = (fnv ^ fnv >> 33).wrapping_mul(0xFF51_AFD7_ED55_8CCD);
        let mixed = (mixed ^ mixed >> 33).wrapping_mul(0xC4CE_B9FE_1A85_EC53);
        (mixed ^ mixed >> 33).is_multiple_of(10)
    }
}

impl fmt::Display for Object {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} {} {}", self.size.word(), self.color.word(), self.form.word(), self.place.word())
    }
}

impl fmt::Display for Scene {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, object) in self.objects.iter().enumerate() {
            if i > 0 {
                f.write_str(", ")?;
            }
            object.fmt(f)?;
        }
        Ok(())
    }
}

impl FromStr for Object {
    type Err = SceneError;

    fn from_str(phrase: &str) -> Result<Self, SceneError> {
        let words: Vec<&str> = phrase.split_whitespace().collect();
        let &[size, color, form, vertical, horizontal] = words.as_slice() else {
            return Err(SceneError::Words { phrase: phrase.to_owned() });
        };
        Ok(Object {
            size: Size::parse(size)?,
            color: Color::parse(color)?,
            form: Form::parse(form)?,
            place: Place::parse(&format!("{vertical} {horizontal}"))?,
        })
    }
}

impl FromStr for Scene {
    type Err = SceneError;

    /// Reads a caption; spaces around phrases do not matter, order does.
    fn from_str(caption: &str) -> Result<Self, SceneError> {
        let objects = caption.split(',').map(str::parse).collect::<Result<Vec<Object>, _>>()?;
        if objects.windows(2).any(|pair| pair[0].place > pair[1].place) {
            return Err(SceneError::Order);
        }
        Scene::new(objects)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::HashSet;

    #[test]
    fn there_are_7920_scenes_and_every_caption_is_its_own() {
        let scenes = Scene::all();
        let captions: HashSet<String> = scenes.iter().map(Scene::to_string).collect();
        assert_eq!((scenes.len(), captions.len()), (7920, 7920));
        for scene in &scenes {
            assert_eq!(scene.to_string().parse::<Scene>().as_ref(), Ok(scene));
            assert_eq!(Scene::new(scene.objects().to_vec()).as_ref(), Ok(scene));
        }
    }

    #[test]
    fn a_tenth_is_held_out_and_training_shows_every_object() {
        let (held_out, training): (Vec<Scene>, Vec<Scene>) =
            Scene::all().into_iter().partition(Scene::is_held_out);
        assert!((700..=880).contains(&held_out.len()), "{} held out", held_out.len());
        let objects =
            |scenes: &[Scene]| scenes.iter().flat_map(|s| s.objects().to_vec()).collect::<HashSet<Object>>();
        assert_eq!(objects(&training).len(), 144);
        assert_eq!(objects(&held_out).len(), 144);
    }

    #[test]
    fn what_is_held_out_never_changes() {
        let first: Vec<String> =
            Scene::all().iter().filter(|s| s.is_held_out()).take(2).map(Scene::to_string).collect();
        assert_eq!(first, HELD_OUT_FIRST);
    }

    // A set written today and one written next year must agree on what training never saw.
    const HELD_OUT_FIRST: [&str; 2] = [
        "small red circle top left, small red triangle top right",
        "small red circle top left, small yellow square top right",
    ];

    #[test]
    fn wrong_captions_say_what_is_wrong() {
        let error = |text: &str| text.parse::<Scene>().unwrap_err().to_string();
        assert_eq!(
            error("small pink circle top left"),
            "\"pink\" is not a valid colour; known are red, green, blue, yellow, purple, black"
        );
        assert!(error("red circle top left").contains("five words"));
        assert!(error("").contains("five words"));
        assert_eq!(error("small red circle top left, big red circle top left"), "two objects top left");
        assert!(error("small red circle top right, big red circle top left").contains("out of order"));
        let three = "small red circle top left, small red circle top right, small red circle bottom left";
        assert_eq!(error(three), "3 objects, where a scene has 1 or 2");
    }

    proptest! {
        #[test]
        fn captions_survive_spaces_and_no_text_panics(index in 0usize..7920, pad in " {0,3}", junk in ".{0,40}") {
            let scenes = Scene::all();
            let spaced = format!("{pad}{}{pad}", scenes[index].to_string().replace(' ', &format!(" {pad}")));
            prop_assert_eq!(spaced.parse::<Scene>(), Ok(scenes[index].clone()));
            let _ = junk.parse::<Scene>();
        }
    }
}

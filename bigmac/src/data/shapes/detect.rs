//! Reading a picture back: which object is in which place.
//!
//! Every place is compared with every object it could hold, moved by up to a pixel each way, and with the empty ground;
//! the candidate with the least squared difference wins, which is the most likely one under Gaussian noise. A place
//! that nothing explains well is unclear, so that a smear does not count as the object it resembles most.

use super::draw::{BACKGROUND, coverage};
use super::scene::{Color, Form, Object, Place, Scene, Size};
use crate::data::error::DataError;

/// Shifts tried along each axis, in pixels of a picture of 32.
const SHIFTS: [f32; 5] = [-1.0, -0.5, 0.0, 0.5, 1.0];
/// An object counts when it explains at least this share of a place's squared difference from the ground.
const EXPLAINED: f32 = 0.5;
/// A place counts as empty up to this mean squared difference from the ground (values in [-1, 1]): noise of 0.2.
const EMPTY: f32 = 0.04;

/// What a place holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reading {
    /// Nothing but ground.
    Empty,
    /// An object.
    Object(Object),
    /// Something that is no object.
    Unclear,
}

/// What a picture shows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Detection {
    /// One reading per place, in the order of [`Place::ALL`].
    pub places: [Reading; 4],
}

impl Detection {
    /// The scene, when every place is clear and one or two hold an object.
    pub fn scene(&self) -> Option<Scene> {
        let mut objects = Vec::new();
        for reading in self.places {
            match reading {
                Reading::Empty => {}
                Reading::Object(object) => objects.push(object),
                Reading::Unclear => return None,
            }
        }
        Scene::new(objects).ok()
    }

    /// Whether the picture shows exactly this scene.
    pub fn shows(&self, scene: &Scene) -> bool {
        self.scene().as_ref() == Some(scene)
    }
}

struct Template {
    form: Form,
    size: Size,
    /// Coverage of each pixel of a quadrant, and the sum of its squares.
    mask: Vec<f32>,
    squares: f32,
}

/// Reads pictures of one size.
pub struct Detector {
    side: usize,
    templates: Vec<Template>,
    ground: [f32; 3],
    /// Each colour's difference from the ground.
    paints: Vec<(Color, [f32; 3])>,
}

impl Detector {
    /// A detector for pictures of `side` x `side` pixels; an odd side leaves out the last row and column.
    pub fn new(side: usize) -> Self {
        let half = side / 2;
        let ground = BACKGROUND.map(to_pixel);
        let mut templates = Vec::new();
        for &form in Form::ALL {
            for &size in Size::ALL {
                for shift_y in SHIFTS {
                    for shift_x in SHIFTS {
                        templates.push(Template::new(form, size, side, half, (shift_x, shift_y)));
                    }
                }
            }
        }
        let paints = Color::ALL.iter().map(|&color| {
            let rgb = color.rgb().map(to_pixel);
            (color, [0, 1, 2].map(|c| rgb[c] - ground[c]))
        });
        Detector { side, templates, ground, paints: paints.collect() }
    }

    /// Reads a picture `[3, side, side]` of values in [-1, 1] (values outside are cut, as when it is shown).
    ///
    /// # Errors
    /// When `pixels` does not hold 3 * side^2 values.
    pub fn detect(&self, pixels: &[f32]) -> Result<Detection, DataError> {
        if pixels.len() != 3 * self.side * self.side {
            return Err(DataError::pixel_count(pixels.len(), self.side, self.side));
        }
        let mut places = [Reading::Empty; 4];
        for (reading, &place) in places.iter_mut().zip(Place::ALL) {
            *reading = self.read(&self.quadrant(pixels, place), place);
        }
        Ok(Detection { places })
    }

    /// A place's difference from the ground, `[3, half, half]`.
    fn quadrant(&self, pixels: &[f32], place: Place) -> Vec<f32> {
        let half = self.side / 2;
        let (column, row) = place.quadrant();
        let mut out = Vec::with_capacity(3 * half * half);
        for channel in 0..3 {
            for y in 0..half {
                let start = (channel * self.side + row * half + y) * self.side + column * half;
                out.extend(
                    pixels[start..start + half].iter().map(|v| v.clamp(-1.0, 1.0) - self.ground[channel]),
                );
            }
        }
        out
    }

    fn read(&self, difference: &[f32], place: Place) -> Reading {
        let plane = difference.len() / 3;
        let energy: f32 = difference.iter().map(|d| d * d).sum();
        let mut best = (0.0, Reading::Empty);
        for template in &self.templates {
            let dot = |channel: usize| -> f32 {
                let values = &difference[channel * plane..(channel + 1) * plane];
                values.iter().zip(&template.mask).map(|(d, m)| d * m).sum()
            };
            let dots = [dot(0), dot(1), dot(2)];
            for (color, paint) in &self.paints {
                // |d|^2 - |d - mask * paint|^2: what the object explains beyond the empty ground.
                let along: f32 = (0..3).map(|c| paint[c] * dots[c]).sum();
                let length: f32 = paint.iter().map(|p| p * p).sum();
                let explained = 2.0 * along - length * template.squares;
                if explained > best.0 {
                    let Template { form, size, .. } = *template;
                    best = (explained, Reading::Object(Object { place, size, color: *color, form }));
                }
            }
        }
        match best {
            (explained, reading @ Reading::Object(_)) if explained >= EXPLAINED * energy => reading,
            (_, Reading::Empty) if energy <= EMPTY * difference.len() as f32 => Reading::Empty,
            _ => Reading::Unclear,
        }
    }
}

impl Template {
    fn new(form: Form, size: Size, side: usize, half: usize, shift: (f32, f32)) -> Self {
        let scale = side as f32 / 32.0;
        let radius = size.radius(side);
        let centre = (side as f32 / 4.0 + shift.0 * scale, side as f32 / 4.0 + shift.1 * scale);
        let at = |i: usize| ((i % half) as f32 + 0.5 - centre.0, (i / half) as f32 + 0.5 - centre.1);
        let mask: Vec<f32> = (0..half * half)
            .map(|i| {
                let (x, y) = at(i);
                coverage(form, radius, x, y)
            })
            .collect();
        let squares = mask.iter().map(|m| m * m).sum();
        Template { form, size, mask, squares }
    }
}

fn to_pixel(value: u8) -> f32 {
    f32::from(value) / 127.5 - 1.0
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::rgb_to_pixels;
    use crate::data::shapes::draw_scene;
    use bigmac_runtime::rng::{Philox, Purpose};

    const TEST: Purpose = Purpose::new("detector test");

    /// The share of every `step`th scene that is read right after `change`.
    fn right(side: usize, step: usize, change: impl Fn(&mut [f32], &mut Philox)) -> f64 {
        let detector = Detector::new(side);
        let (mut right, mut all) = (0, 0);
        for (i, scene) in Scene::all().iter().enumerate().step_by(step) {
            let mut rng = Philox::new(11, TEST, side as u32, i as u32);
            let mut pixels = rgb_to_pixels(&draw_scene(scene, side, &mut rng));
            change(&mut pixels, &mut rng);
            right += usize::from(detector.detect(&pixels).unwrap().shows(scene));
            all += 1;
        }
        f64::from(right as u32) / f64::from(all as u32)
    }

    fn noise(sigma: f32) -> impl Fn(&mut [f32], &mut Philox) {
        move |pixels, rng| pixels.iter_mut().for_each(|p| *p += sigma * rng.normal())
    }

    fn blur(pixels: &mut [f32], _: &mut Philox) {
        let side = ((pixels.len() / 3) as f64).sqrt() as usize;
        let source = pixels.to_owned();
        for (i, out) in pixels.iter_mut().enumerate() {
            let (channel, y, x) = (i / (side * side), i / side % side, i % side);
            let (mut sum, mut count) = (0.0, 0.0);
            for yy in y.saturating_sub(1)..=(y + 1).min(side - 1) {
                for xx in x.saturating_sub(1)..=(x + 1).min(side - 1) {
                    sum += source[(channel * side + yy) * side + xx];
                    count += 1.0;
                }
            }
            *out = sum / count;
        }
    }

    #[test]
    fn every_true_picture_is_read_right() {
        assert_eq!(right(32, 1, |_, _| {}), 1.0);
        for side in [24, 40, 64] {
            assert_eq!(right(side, 61, |_, _| {}), 1.0, "side {side}");
        }
    }

    #[test]
    fn noise_blur_and_fading_do_not_disturb() {
        assert_eq!(right(32, 7, noise(0.05)), 1.0);
        assert_eq!(right(32, 7, noise(0.1)), 1.0);
        assert!(right(32, 7, noise(0.2)) > 0.98);
        assert!(right(32, 7, blur) > 0.99);
        let faded = |pixels: &mut [f32], _: &mut Philox| pixels.iter_mut().for_each(|p| *p = *p * 0.85 + 0.1);
        assert!(right(32, 7, faded) > 0.99);
    }

    #[test]
    fn a_smear_an_empty_ground_and_noise_are_no_scene() {
        let detector = Detector::new(32);
        let plane = 32 * 32;
        let ground: Vec<f32> = (0..3 * plane).map(|i| to_pixel(BACKGROUND[i / plane])).collect();
        assert_eq!(detector.detect(&ground).unwrap().places, [Reading::Empty; 4]);
        assert_eq!(detector.detect(&ground).unwrap().scene(), None);
        assert_eq!(detector.detect(&vec![0.0; 3 * plane]).unwrap().scene(), None);
        let mut rng = Philox::new(0, TEST, 0, 0);
        let static_: Vec<f32> = (0..3 * plane).map(|_| rng.normal()).collect();
        assert_eq!(detector.detect(&static_).unwrap().scene(), None);
        assert!(detector.detect(&ground[1..]).is_err());
        // NaN, as a diverged model draws, is no scene either.
        assert_eq!(detector.detect(&vec![f32::NAN; 3 * plane]).unwrap().scene(), None);
    }

    #[test]
    fn one_wrong_attribute_is_noticed() {
        let detector = Detector::new(32);
        let drawn: Scene = "small red circle top left, big blue square bottom right".parse().unwrap();
        let pixels = rgb_to_pixels(&draw_scene(&drawn, 32, &mut Philox::new(5, TEST, 0, 0)));
        let detection = detector.detect(&pixels).unwrap();
        assert!(detection.shows(&drawn));
        for other in [
            "big red circle top left, big blue square bottom right",
            "small purple circle top left, big blue square bottom right",
            "small red square top left, big blue square bottom right",
            "small red circle top right, big blue square bottom right",
            "small red circle top left",
        ] {
            assert!(!detection.shows(&other.parse().unwrap()), "{other}");
        }
    }
}

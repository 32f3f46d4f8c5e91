//! Drawing a scene: antialiased shapes on a light ground. Only arithmetic that IEEE 754 rounds exactly is used, so that
//! a seed gives the same bytes on every machine.

use super::scene::{Color, Form, Object, Place, Scene, Size};
use bigmac_runtime::rng::Philox;
use image::{Rgb, RgbImage};

/// The ground, 8-bit RGB.
pub const BACKGROUND: [u8; 3] = [242, 240, 235];

/// The picture's side for which the sizes are given.
const REFERENCE: f32 = 32.0;

impl Color {
    /// 8-bit RGB.
    pub fn rgb(self) -> [u8; 3] {
        match self {
            Color::Red => [214, 40, 40],
            Color::Green => [38, 150, 70],
            Color::Blue => [36, 84, 214],
            Color::Yellow => [244, 196, 32],
            Color::Purple => [150, 50, 180],
            Color::Black => [28, 28, 32],
        }
    }
}

impl Size {
    /// Half the side of the box that the form spans, in pixels of a picture of `side`.
    pub(super) fn radius(self, side: usize) -> f32 {
        let radius = match self {
            Size::Small => 4.2,
            Size::Big => 7.2,
        };
        radius * side as f32 / REFERENCE
    }
}

impl Place {
    /// Column and row of the quadrant, 0 or 1.
    pub(super) fn quadrant(self) -> (usize, usize) {
        match self {
            Place::TopLeft => (0, 0),
            Place::TopRight => (1, 0),
            Place::BottomLeft => (0, 1),
            Place::BottomRight => (1, 1),
        }
    }
}

/// How much of the pixel at (`x`, `y`) from a form's centre it covers, 0 to 1. Every form spans the box
/// `[-radius, radius]`^2, so that form and size are told apart by different things: corners and extent.
pub(super) fn coverage(form: Form, radius: f32, x: f32, y: f32) -> f32 {
    let inside = |distance: f32| (0.5 - distance).clamp(0.0, 1.0);
    match form {
        Form::Circle => inside((x * x + y * y).sqrt() - radius),
        Form::Square => inside(x.abs() - radius) * inside(y.abs() - radius),
        // Corners (0, -r), (-r, r), (r, r): the slanted sides have the normals (+-2, -1) / sqrt(5).
        Form::Triangle => inside((2.0 * x.abs() - (y + radius)) / 5f32.sqrt()) * inside(y - radius),
    }
}

/// Draws a scene as `side` x `side` pixels; every object's centre is moved by up to half a pixel (of a picture of 32)
/// each way, as `jitter` says.
pub fn draw_scene(scene: &Scene, side: usize, jitter: &mut Philox) -> RgbImage {
    let mut image = RgbImage::from_pixel(side as u32, side as u32, Rgb(BACKGROUND));
    for object in scene.objects() {
        let mut shift = || (jitter.uniform() - 0.5) * side as f32 / REFERENCE;
        let offset = (shift(), shift());
        draw_object(&mut image, object, side, offset);
    }
    image
}

fn draw_object(image: &mut RgbImage, object: &Object, side: usize, offset: (f32, f32)) {
    let (column, row) = object.place.quadrant();
    let centre = |quadrant: usize, offset: f32| (0.25 + 0.5 * quadrant as f32) * side as f32 + offset;
    let (centre_x, centre_y) = (centre(column, offset.0), centre(row, offset.1));
    let (radius, color) = (object.size.radius(side), object.color.rgb());
    for (x, y, pixel) in image.enumerate_pixels_mut() {
        let (dx, dy) = (x as f32 + 0.5 - centre_x, y as f32 + 0.5 - centre_y);
        let covered = coverage(object.form, radius, dx, dy);
        if covered > 0.0 {
            for (channel, &paint) in pixel.0.iter_mut().zip(&color) {
                let ground = f32::from(*channel);
                *channel = (ground + covered * (f32::from(paint) - ground)).round() as u8;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bigmac_close::{absolute, assert_close};
    use bigmac_runtime::rng::Purpose;

    #[test]
    fn coverage_adds_up_to_the_area() {
        for (form, area) in [(Form::Circle, std::f32::consts::PI), (Form::Square, 4.0), (Form::Triangle, 2.0)]
        {
            for radius in [4.2f32, 7.2, 20.0] {
                let mut sum = 0.0;
                for y in -24..24 {
                    for x in -24..24 {
                        sum += coverage(form, radius, x as f32 + 0.3, y as f32 + 0.6);
                    }
                }
                let wanted = area * radius * radius;
                assert_close(sum, wanted, absolute(f64::from(0.02 * wanted + 0.4)));
            }
        }
    }

    #[test]
    fn objects_stay_in_their_quadrant_at_any_size() {
        for side in [16usize, 32, 48, 64] {
            for scene in Scene::all().iter().step_by(97) {
                let image =
                    draw_scene(scene, side, &mut Philox::new(3, Purpose::new("test"), 0, side as u32));
                let used = |place: Place| {
                    let (column, row) = place.quadrant();
                    image.enumerate_pixels().any(|(x, y, p)| {
                        (x as usize * 2 / side, y as usize * 2 / side) == (column, row) && p.0 != BACKGROUND
                    })
                };
                for &place in Place::ALL {
                    assert_eq!(
                        used(place),
                        scene.objects().iter().any(|o| o.place == place),
                        "{scene} at {side}"
                    );
                }
            }
        }
    }

    #[test]
    fn the_middle_of_an_object_has_its_colour() {
        let scene: Scene = "small yellow triangle top right, big black circle bottom left".parse().unwrap();
        let image = draw_scene(&scene, 32, &mut Philox::new(0, Purpose::new("test"), 0, 0));
        assert_eq!(image.get_pixel(24, 9).0, Color::Yellow.rgb());
        assert_eq!(image.get_pixel(8, 24).0, Color::Black.rgb());
        assert_eq!(image.get_pixel(8, 8).0, BACKGROUND);
    }
}

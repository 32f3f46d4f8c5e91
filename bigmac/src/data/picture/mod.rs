//! Pictures: where they lie, how they are decoded, resized and cut, and pixels in [-1, 1].

mod decode;
mod limits;
mod load;
mod pixels;
mod reference;
mod tile;

pub(in crate::data) use decode::Encoded;
pub use decode::decode;
pub use limits::PictureLimits;
pub(in crate::data) use load::load_squares;
pub use load::{decoding_cost, load_square, load_tile};
pub use pixels::{pixels_to_rgb, rgb_to_pixels, write_picture, write_png};
pub use reference::PictureRef;
pub(in crate::data) use reference::{Origin, Source};
pub(in crate::data) use tile::cut;
pub use tile::{Square, Tile, Tiling};

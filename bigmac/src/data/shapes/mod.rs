//! The **shapes** set: pictures of coloured shapes and captions that say size, colour, form and place.
//!
//! Small enough to be learned on two CPU cores, hard enough to show whether encoder, LLM and generator work together:
//! a caption of an unseen picture is right only word by word, and a drawn picture is read back by a [`Detector`].

mod detect;
mod draw;
mod scene;
mod write;

pub use detect::{Detection, Detector, Reading};
pub use draw::{BACKGROUND, draw_scene};
pub use scene::{Color, Form, Object, Place, Scene, SceneError, Size};
pub use write::{Outcome, ShapesSpec, write_shapes};

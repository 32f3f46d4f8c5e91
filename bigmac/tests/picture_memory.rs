//! Decoding a picture takes no more memory than its header says that it will, for every kind of file.

use bigmac::data::{PictureLimits, PictureRef, Square, Tile, Tiling, decoding_cost, load_tile};
use image::{DynamicImage, ImageFormat, RgbImage, RgbaImage};
use std::alloc::{GlobalAlloc, Layout, System};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};

/// Counts the bytes that are allocated, and the most at a time.
struct Counting;

static NOW: AtomicUsize = AtomicUsize::new(0);
static MOST: AtomicUsize = AtomicUsize::new(0);

// SAFETY: every call goes to the system's allocator with the arguments that it came with; the counters are atomic.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let now = NOW.fetch_add(layout.size(), Ordering::Relaxed) + layout.size();
        MOST.fetch_max(now, Ordering::Relaxed);
        // SAFETY: as above.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        NOW.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: as above.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// A picture that is different everywhere.
fn noise(width: u32, height: u32) -> RgbImage {
    RgbImage::from_fn(width, height, |x, y| {
        image::Rgb([x.wrapping_mul(y) as u8, (x * 31 + y * 17) as u8, (x ^ y) as u8])
    })
}

/// Pictures of every kind that is read, `name` and file.
fn files(folder: &Path) -> Vec<PathBuf> {
    let rgb = noise(1200, 900);
    let rgba = RgbaImage::from_fn(1200, 900, |x, y| image::Rgba([x as u8, y as u8, 9, (x + y) as u8]));
    let written: [(&str, DynamicImage, ImageFormat); 8] = [
        ("rgb.png", rgb.clone().into(), ImageFormat::Png),
        ("rgba.png", rgba.clone().into(), ImageFormat::Png),
        ("rgb16.png", DynamicImage::from(rgb.clone()).to_rgb16().into(), ImageFormat::Png),
        ("rgba16.png", DynamicImage::from(rgba.clone()).to_rgba16().into(), ImageFormat::Png),
        ("grey.png", DynamicImage::from(rgb.clone()).to_luma8().into(), ImageFormat::Png),
        ("rgb.jpg", rgb.clone().into(), ImageFormat::Jpeg),
        ("grey.jpg", DynamicImage::from(rgb.clone()).to_luma8().into(), ImageFormat::Jpeg),
        ("rgba.webp", rgba.into(), ImageFormat::WebP),
    ];
    let mut files = Vec::new();
    for (name, image, format) in written {
        let path = folder.join(name);
        image.save_with_format(&path, format).unwrap();
        files.push(path);
    }
    rgb.save_with_format(folder.join("rgb.gif"), ImageFormat::Gif).unwrap();
    files.push(folder.join("rgb.gif"));
    let stored = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/files/pictures");
    for entry in std::fs::read_dir(stored).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|extension| extension != "py") {
            files.push(path);
        }
    }
    files
}

#[test]
fn decoding_takes_what_the_header_says_at_most() {
    let folder = tempfile::tempdir().unwrap();
    let limits = PictureLimits::default();
    let tiling = Tiling { columns: 3, rows: 2 };
    let tiles = [Tile::Whole, Tile::Cell { tiling, column: 2, row: 1 }];
    let files = files(folder.path());
    assert_eq!(files.len(), 17, "{files:?}");
    for path in files {
        for tile in tiles {
            let picture = PictureRef::new(&path);
            let cost = decoding_cost(&picture, &[Square { tile, size: 336 }], &limits).unwrap();
            let before = NOW.load(Ordering::Relaxed);
            MOST.store(before, Ordering::Relaxed);
            let pixels = load_tile(&picture, tile, 336, &limits).unwrap();
            // The pixels as floats are not the decoder's.
            let taken = MOST.load(Ordering::Relaxed) - before;
            let predicted = cost as usize + 4 * pixels.len();
            println!("{} {tile:?}: {taken} of {predicted}", path.display());
            assert!(taken <= predicted, "{} {tile:?}: {taken} bytes, predicted {predicted}", path.display());
            // Too much room would keep pictures waiting that fit.
            assert!(predicted < 4 * taken + (4 << 20), "{} {tile:?}: {taken} of {predicted}", path.display());
        }
    }
}

use super::*;
use bigmac_close::{absolute, assert_close};
use image::{DynamicImage, ImageFormat, Rgba, RgbaImage};

#[test]
fn pixels_run_channel_by_channel_from_minus_one_to_one() {
    let image = RgbImage::from_fn(3, 2, |x, y| Rgb([if x == 2 { 255 } else { 0 }, (y * 255) as u8, 51]));
    let pixels = rgb_to_pixels(&image);
    assert_eq!(pixels[..6], [-1.0, -1.0, 1.0, -1.0, -1.0, 1.0]);
    assert_eq!(pixels[6..12], [-1.0, -1.0, -1.0, 1.0, 1.0, 1.0]);
    pixels[12..].iter().for_each(|&p| assert_close(p, -0.6f32, absolute(1e-6)));
    assert_eq!(pixels_to_rgb(&pixels, 3, 2).unwrap(), image);
    let error = pixels_to_rgb(&pixels, 2, 2).unwrap_err().to_string();
    assert!(error.contains("18 values") && error.contains("give 12 values"), "{error}");
}

#[test]
fn every_byte_survives_the_way_there_and_back_and_outsiders_are_cut() {
    let image = RgbImage::from_fn(16, 16, |x, y| Rgb([(x + 16 * y) as u8; 3]));
    assert_eq!(pixels_to_rgb(&rgb_to_pixels(&image), 16, 16).unwrap(), image);
    let cut = pixels_to_rgb(&[-7.0, 7.0, f32::NAN], 1, 1).unwrap();
    assert_eq!(cut.get_pixel(0, 0).0, [0, 255, 0]);
}

#[test]
fn every_colour_type_becomes_rgb() {
    let set = Set::lines(&[]);
    let rgb = gradient(6, 5);
    let grey = DynamicImage::from(rgb.clone()).to_luma8();
    let clear = RgbaImage::from_fn(6, 5, |x, _| Rgba([10, 20, 30, if x == 0 { 0 } else { 255 }]));
    let cases: [(&str, DynamicImage, ImageFormat); 6] = [
        ("rgb", rgb.clone().into(), ImageFormat::Png),
        ("rgb16", DynamicImage::from(rgb.clone()).to_rgb16().into(), ImageFormat::Png),
        ("grey", grey.clone().into(), ImageFormat::Png),
        ("grey16", DynamicImage::from(grey.clone()).to_luma16().into(), ImageFormat::Png),
        ("clear", clear.into(), ImageFormat::Png),
        ("jpeg", RgbImage::from_pixel(6, 5, Rgb([200, 100, 50])).into(), ImageFormat::Jpeg),
    ];
    for (name, image, format) in cases {
        // The kind is told by the first bytes, not by the name.
        let path = set.path(&format!("{name}.img"));
        image.save_with_format(&path, format).unwrap();
        let read = decode(&PictureRef::new(&path), &LAYOUT.limits).unwrap();
        let at = |x, y| read.get_pixel(x, y).0;
        match name {
            "rgb" | "rgb16" => assert_eq!(read, rgb),
            "grey" | "grey16" => assert_eq!(at(3, 2), [grey.get_pixel(3, 2).0[0]; 3]),
            "clear" => assert_eq!((at(0, 0), at(1, 0)), ([255; 3], [10, 20, 30])),
            _ => assert!(
                at(3, 2).iter().zip([200u8, 100, 50]).all(|(a, b)| a.abs_diff(b) <= 3),
                "{:?}",
                at(3, 2)
            ),
        }
    }
}

#[test]
fn damaged_pictures_are_named_with_file_line_and_cause() {
    let set = Set::lines(&[
        r#"{"text": "x"}"#,
        r#"{"text": "x", "images": ["cut.png"]}"#,
        r#"{"prompt": "y", "draw": "cut.jpg"}"#,
    ]);
    let big = RgbImage::from_fn(64, 64, |x, y| Rgb([(x * y) as u8, (x * 7) as u8, (y * 3) as u8]));
    for (name, format) in [("cut.png", ImageFormat::Png), ("cut.jpg", ImageFormat::Jpeg)] {
        let mut bytes = std::io::Cursor::new(Vec::new());
        big.write_to(&mut bytes, format).unwrap();
        let bytes = bytes.into_inner();
        std::fs::write(set.path(name), &bytes[..bytes.len() / 3]).unwrap();
    }
    // Loading looks at the index only; whoever runs the item meets the damage, and can say which line it is.
    let data = set.load().unwrap();
    let plan = pack(&data, &[0, 1, 2], 1).unwrap();
    let error = load_image_item(&plan.microbatches[0].images[0], &LAYOUT.limits).unwrap_err().to_string();
    assert!(
        error.contains("train.jsonl:2: picture") && error.contains("cut.png: cannot be decoded"),
        "{error}"
    );
    let error = load_draw_item(&plan.microbatches[0].draws[0], &LAYOUT.limits).unwrap_err().to_string();
    assert!(error.contains("train.jsonl:3: picture") && error.contains("cut.jpg: is cut short"), "{error}");
    std::fs::write(set.path("cut.png"), "hello").unwrap();
    assert!(
        load_image_item(&plan.microbatches[0].images[0], &LAYOUT.limits)
            .unwrap_err()
            .to_string()
            .contains("PNG, JPEG, WebP and GIF")
    );
    let missing = decode(&PictureRef::new(&set.path("none.png")), &LAYOUT.limits).unwrap_err().to_string();
    assert!(missing.contains("none.png: no such file"), "{missing}");
}

#[test]
fn a_picture_of_the_right_size_is_not_resampled_and_a_plain_one_stays_plain() {
    let set = Set::lines(&[]);
    let exact = load_square(&PictureRef::new(&set.path("a.png")), 8, &LAYOUT.limits).unwrap();
    assert_eq!(exact, rgb_to_pixels(&gradient(8, 8)));
    RgbImage::from_pixel(37, 11, Rgb([51, 102, 204])).save(set.path("plain.png")).unwrap();
    let plain = load_square(&PictureRef::new(&set.path("plain.png")), 16, &LAYOUT.limits).unwrap();
    assert_eq!(plain.len(), 3 * 16 * 16);
    for (channel, value) in [-0.6, -0.2, 0.6].into_iter().enumerate() {
        plain[channel * 256..(channel + 1) * 256]
            .iter()
            .for_each(|&p| assert_close(p, value, absolute(1e-6)));
    }
}

#[test]
fn grids_keep_the_aspect() {
    let choose = |w, h, max| {
        let Tiling { columns, rows } = Tiling::choose(w, h, 8, max);
        (columns, rows)
    };
    assert_eq!(choose(8, 8, 4), (1, 1));
    assert_eq!(choose(3, 5, 4), (1, 1));
    assert_eq!(choose(100, 100, 1), (1, 1));
    assert_eq!(choose(16, 16, 4), (2, 2));
    assert_eq!(choose(32, 8, 4), (4, 1));
    assert_eq!(choose(8, 32, 4), (1, 4));
    assert_eq!(choose(640, 480, 4), (2, 2));
    assert_eq!(choose(3000, 10, 6), (6, 1));
    assert_eq!(choose(480, 640, 6), (2, 3));
}

#[test]
fn tiles_put_together_are_the_picture() {
    let set = Set::lines(&[r#"{"text": "x<image>y", "images": ["wide.png"]}"#]);
    let image = gradient(24, 8);
    image.save(set.path("wide.png")).unwrap();
    let layout = Layout { max_tiles: 3, ..LAYOUT };
    let data = set.load_with(&layout).unwrap();
    let plan = pack(&data, &[0], 1).unwrap();
    let items = &plan.microbatches[0].images;
    assert_eq!(items.len(), 4);
    assert_eq!(items[0].tile, Tile::Whole);
    assert_eq!(items.iter().map(|i| i.rows.clone()).collect::<Vec<_>>(), [2..6, 6..10, 10..14, 14..18]);
    assert_eq!(plan.microbatches[0].tokens, ids("BxIIIIIIIIIIIIIIIIyE"));
    for (column, item) in items[1..].iter().enumerate() {
        let cell = image::imageops::crop_imm(&image, column as u32 * 8, 0, 8, 8).to_image();
        assert_eq!(load_image_item(item, &LAYOUT.limits).unwrap(), rgb_to_pixels(&cell));
    }
    // 24 x 12 on the same grid would be cut; on 3 x 1 it keeps its aspect between bars of black.
    RgbImage::from_pixel(48, 12, Rgb([255; 3])).save(set.path("bars.png")).unwrap();
    let bars = PictureRef::new(&set.path("bars.png"));
    let tiling = Tiling { columns: 3, rows: 1 };
    let pixels = load_tile(&bars, Tile::Cell { tiling, column: 1, row: 0 }, 8, &LAYOUT.limits).unwrap();
    let column: Vec<f32> = (0..8).map(|y| pixels[y * 8 + 3]).collect();
    assert_eq!(column, [-1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, -1.0]);
}

#[test]
fn pictures_are_written_whole_or_not_at_all() {
    let set = Set::lines(&[]);
    write_png(&set.path("out.png"), &gradient(5, 4)).unwrap();
    assert_eq!(decode(&PictureRef::new(&set.path("out.png")), &LAYOUT.limits).unwrap(), gradient(5, 4));
    let error = write_png(&set.path("nowhere/out.png"), &gradient(5, 4)).unwrap_err().to_string();
    assert!(error.contains("nowhere/out.png"), "{error}");
    assert!(write_png(&set.path("sub"), &gradient(5, 4)).is_err());
    let left: Vec<_> =
        std::fs::read_dir(set.folder.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(left.len(), 5, "{left:?}");
}

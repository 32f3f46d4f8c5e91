use super::*;
use crate::data::{Prefetcher, StepPictures};

/// A set of `count` pictures of 40 x 30, each read once and drawn once, in one step.
fn photos(count: usize, max_tiles: usize) -> (Set, StepPlan) {
    let set = Set::lines(&[]);
    let mut lines = String::new();
    for i in 0..count {
        let shade = move |x, y, c: u32| (x * 5 + y * 3 + 40 * c + i as u32 * 7) as u8;
        let photo = RgbImage::from_fn(40, 30, |x, y| Rgb([0, 1, 2].map(|c| shade(x, y, c))));
        photo.save(set.path(&format!("{i}.png"))).unwrap();
        lines += &format!("{{\"images\": [\"{i}.png\"], \"draw\": \"{i}.png\"}}\n");
    }
    std::fs::write(set.path("train.jsonl"), lines).unwrap();
    let data = set.load_with(&Layout { max_tiles, ..LAYOUT }).unwrap();
    let plan = pack(&data, &(0..count).collect::<Vec<_>>(), 2).unwrap();
    (set, plan)
}

/// Every item's pixels, against those of a picture that is decoded for it alone.
fn check_all(pictures: &StepPictures, plan: &StepPlan, backwards: bool) {
    let mut loads: Vec<_> = plan.microbatches.iter().collect();
    if backwards {
        loads.reverse();
    }
    for load in loads {
        for item in &load.images {
            assert_eq!(pictures.image(item).unwrap(), load_image_item(item, &LAYOUT.limits).unwrap());
        }
        for item in &load.draws {
            assert_eq!(pictures.draw(item).unwrap(), load_draw_item(item, &LAYOUT.limits).unwrap());
        }
    }
}

#[test]
fn a_picture_is_decoded_once_for_all_of_its_tiles() {
    let (set, plan) = photos(6, 4);
    let prefetcher = Prefetcher::new(LAYOUT.limits, 2).unwrap();
    let pictures = prefetcher.step(&plan);
    pictures.ready().unwrap();
    let items = plan.microbatches.iter().flat_map(|load| &load.images);
    let wanted: Vec<_> = items.map(|item| load_image_item(item, &LAYOUT.limits).unwrap()).collect();
    assert_eq!(wanted.len(), 6 * 5);
    // Whoever read a file again would not find it.
    (0..6).for_each(|i| std::fs::remove_file(set.path(&format!("{i}.png"))).unwrap());
    for _ in 0..2 {
        let items = plan.microbatches.iter().flat_map(|load| &load.images);
        let read: Vec<_> = items.map(|item| pictures.image(item).unwrap()).collect();
        assert_eq!(read, wanted);
    }
}

#[test]
fn any_budget_that_holds_each_picture_is_enough_whatever_the_order() {
    let (_set, plan) = photos(12, 4);
    let items = plan.microbatches.iter().flat_map(|load| &load.images);
    let squares = |picture: &PictureRef| {
        let draw = Square { tile: Tile::Whole, size: LAYOUT.draw_size as u32 };
        let of_picture =
            plan.microbatches.iter().flat_map(|load| &load.images).filter(|i| i.picture == *picture);
        let tiles = of_picture.map(|item| Square { tile: item.tile, size: item.size as u32 });
        tiles.chain([draw]).collect::<Vec<_>>()
    };
    let cost = |picture: &PictureRef| decoding_cost(picture, &squares(picture), &LAYOUT.limits).unwrap();
    let largest = items.map(|item| cost(&item.picture)).max().unwrap();
    for (budget, threads) in [(largest, 1), (largest, 4), (largest + 3000, 2), (3 * largest, 3)] {
        let limits = PictureLimits { bytes: budget, ..LAYOUT.limits };
        let prefetcher = Prefetcher::new(limits, threads).unwrap();
        // Two steps at once, and ranks that want their pictures from opposite ends.
        let steps = [prefetcher.step(&plan), prefetcher.step(&plan)];
        std::thread::scope(|scope| {
            for (rank, backwards) in [(0, false), (1, true), (1, false), (0, true)] {
                let (steps, plan) = (&steps, &plan);
                scope.spawn(move || check_all(&steps[rank], plan, backwards));
            }
        });
        assert!(prefetcher.peak_bytes() <= budget, "{} of {budget}", prefetcher.peak_bytes());
        drop(steps);
        assert_eq!(prefetcher.used_bytes(), 0);
    }
    let limits = PictureLimits { bytes: largest - 1, ..LAYOUT.limits };
    let prefetcher = Prefetcher::new(limits, 1).unwrap();
    let error = prefetcher.step(&plan).ready().unwrap_err().to_string();
    assert!(error.contains("train.jsonl:") && error.contains("data.prefetch is"), "{error}");
}

#[test]
fn a_damaged_picture_is_named_and_the_others_are_there() {
    let (set, plan) = photos(5, 1);
    std::fs::write(set.path("3.png"), "no picture").unwrap();
    let prefetcher = Prefetcher::new(LAYOUT.limits, 2).unwrap();
    let pictures = prefetcher.step(&plan);
    let failures = pictures.failures();
    assert_eq!(failures.len(), 1);
    let error = failures[0].1.to_string();
    assert!(error.contains("train.jsonl:4: picture") && error.contains("3.png"), "{error}");
    for item in plan.microbatches.iter().flat_map(|load| &load.images) {
        assert_eq!(pictures.image(item).is_err(), item.picture == failures[0].0);
    }
    // A step that is dropped while it is being decoded leaves nothing.
    let more: Vec<_> = (0..20).map(|_| prefetcher.step(&plan)).collect();
    drop((pictures, more));
    drop(prefetcher);
}

#[test]
fn pictures_that_claim_too_much_are_refused_by_their_headers() {
    let set = Set::lines(&[]);
    RgbImage::new(1200, 900).save(set.path("large.png")).unwrap();
    let large = PictureRef::new(&set.path("large.png"));
    let limits = PictureLimits { pixels: 1200 * 900 - 1, bytes: 1 << 30 };
    for error in [
        decode(&large, &limits).unwrap_err(),
        load_square(&large, 8, &limits).unwrap_err(),
        large.dimensions(&limits).unwrap_err(),
    ] {
        let error = error.to_string();
        assert!(error.contains("1200 x 900 pixels, more than data.max_pixels = 1079999"), "{error}");
    }
    let limits = PictureLimits { pixels: u64::MAX, bytes: 1 << 20 };
    let error = decode(&large, &limits).unwrap_err().to_string();
    assert!(error.contains("MiB of memory to decode, and data.prefetch is 1 MiB"), "{error}");
    assert_eq!(large.dimensions(&limits).unwrap(), (1200, 900));
    // Few pixels, which resizing would spread over gigabytes.
    RgbImage::new(100_000, 1).save(set.path("wide.png")).unwrap();
    let wide = PictureRef::new(&set.path("wide.png"));
    assert!(decode(&wide, &LAYOUT.limits).is_ok());
    let error = load_square(&wide, 64, &LAYOUT.limits).unwrap_err().to_string();
    assert!(error.contains("data.prefetch is 16 MiB"), "{error}");
    // A file that is larger than the limit is not even read.
    let file = std::fs::File::create(set.path("huge.png")).unwrap();
    file.set_len(1 << 40).unwrap();
    let error = decode(&PictureRef::new(&set.path("huge.png")), &LAYOUT.limits).unwrap_err().to_string();
    assert!(error.contains("1048576 MiB"), "{error}");
}

#[test]
fn the_first_frame_of_an_animation_is_read() {
    let stored = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/files/pictures");
    for name in ["animated.webp", "animated.png"] {
        let read = decode(&PictureRef::new(&stored.join(name)), &PictureLimits::default()).unwrap();
        assert_eq!((read.dimensions(), read.get_pixel(30, 20).0), ((64, 48), [0, 0, 255]), "{name}");
    }
    let turned = PictureRef::new(&stored.join("turned.jpg"));
    assert_eq!(turned.dimensions(&PictureLimits::default()).unwrap(), (1000, 1504));
    for name in ["lossy.webp", "alpha.webp", "animated.gif", "progressive.jpg", "cmyk.jpg"] {
        let read = decode(&PictureRef::new(&stored.join(name)), &PictureLimits::default()).unwrap();
        assert_eq!(read.dimensions(), (1504, 1000), "{name}");
    }
}

//! What can be wrong with a driver, a GPU or a launch: each is an error that says what was given, what is wanted, what
//! to do.

use super::fake::Fake;
use crate::driver::{Driver, Function, Geometry};
use crate::launch::Compiled;
use crate::nvidia::{Architecture, OpenError};

pub const GEOMETRY: Geometry = Geometry { grid: [2, 1, 1], block: [64, 1, 1], cluster: [1; 3], shared: 4096 };

pub fn says(error: impl std::fmt::Display, wanted: &[&str]) {
    let text = error.to_string();
    assert!(wanted.iter().all(|wanted| text.contains(wanted)), "{text}\nwanted {wanted:?}");
}

#[test]
fn no_gpu_and_too_few_gpus_are_told_apart() {
    for none in [&["INIT=100"][..], &["DEVICES=0"]] {
        let fake = Fake::new(none);
        for error in [fake.open(0).unwrap_err(), fake.machine().unwrap_err()] {
            assert!(matches!(error, OpenError::NoDevice { .. }));
            says(error, &["no GPU", "nvidia-smi", "CUDA_VISIBLE_DEVICES"]);
        }
    }
    let fake = Fake::new(&["DEVICES=2"]);
    says(fake.open(2).unwrap_err(), &["GPU 2 was not found", "sees 2"]);
    assert_eq!(fake.open(1).unwrap().name(), "Fake 41");
    let machine = fake.machine().unwrap();
    assert_eq!(machine.devices.iter().map(|device| device.ordinal).collect::<Vec<_>>(), [0, 1]);
    assert_eq!((machine.devices[1].processors, machine.devices[1].memory), (132, 256 << 20));
    says(Fake::new(&["INIT=803"]).machine().unwrap_err(), &["cuInit", "803", "restart the machine"]);
}

#[test]
fn an_architecture_that_is_too_old_or_unknown_is_refused() {
    let error = Fake::new(&["MAJOR=7", "MINOR=5"]).open(0).unwrap_err();
    let OpenError::Unsupported { given, wanted, .. } = &error else { panic!("{error}") };
    assert_eq!((*given, *wanted), (Architecture { major: 7, minor: 5 }, Architecture::EARLIEST));
    says(error, &["Fake 40", "sm_75", "sm_80"]);
    let error = Fake::new(&["MAJOR=10"]).open(0).unwrap_err();
    says(error, &["libnvrtc.so.13", "13.0", "sm_100a", "sm_80, sm_90", "BIGMAC_LIBNVRTC"]);
    for (major, minor, target) in [(8, 0, "sm_80"), (8, 9, "sm_89"), (9, 0, "sm_90a"), (12, 1, "sm_121a")] {
        assert_eq!(Architecture { major, minor }.target(), target);
    }
}

#[test]
fn a_launch_that_is_refused_is_told_with_kernel_extents_and_limits() {
    let fake = Fake::new(&["REFUSED=701"]);
    let gpu = fake.open(0).unwrap();
    let scale = gpu.load(&fake.compiled(), "scale").unwrap();
    let launch = |function| {
        // SAFETY: the fake refuses before it looks at arguments.
        unsafe { gpu.launch(function, &GEOMETRY, &mut []) }.unwrap_err()
    };
    says(
        launch(scale),
        &[
            "scale",
            "CUDA_ERROR_LAUNCH_OUT_OF_RESOURCES (701)",
            "[2, 1, 1]",
            "[64, 1, 1]",
            "4096",
            "1024",
            "40",
            "232000",
        ],
    );
    says(launch(Function(5)), &["kernel 5", "1 kernels"]);
}

#[test]
fn a_kernel_that_fails_loses_the_context_and_every_call_says_so() {
    let fake = Fake::new(&["FAILING=700"]);
    let gpu = fake.open(0).unwrap();
    let function = gpu.load(&fake.compiled(), "scale").unwrap();
    let address = gpu.allocate(16).unwrap();
    super::work::scale(&gpu, function, &GEOMETRY, (address, address), 4).unwrap();
    let lost = [
        "CUDA_ERROR_ILLEGAL_ADDRESS (700)",
        "illegal memory access",
        "context is lost",
        "CUDA_LAUNCH_BLOCKING",
    ];
    says(gpu.synchronize().unwrap_err(), &lost);
    says(gpu.upload(address, &[1; 16]).unwrap_err(), &lost);
    says(gpu.download(address, &mut [0; 16]).unwrap_err(), &lost);
    says(gpu.fill(address, 0, 16).unwrap_err(), &lost);
    says(gpu.mark().unwrap_err(), &lost);
    gpu.free(address, 16);
}

#[test]
fn files_that_are_no_compiled_kernels_never_reach_the_driver() {
    let fake = Fake::new(&[]);
    let gpu = fake.open(0).unwrap();
    let load = |compiled: &Compiled| gpu.load(compiled, "scale").unwrap_err();
    let good = fake.compiled();
    says(gpu.load(&good, "other").unwrap_err(), &["cuModuleGetFunction", "kernel.cubin", "NOT_FOUND"]);
    let file = good.image.with_file_name("broken.cubin");
    let broken = Compiled { image: file.clone(), ..good.clone() };
    says(load(&broken), &["broken.cubin", "stay where they are"]);
    let whole = std::fs::read(&good.image).unwrap();
    let mut claims_more = whole.clone();
    claims_more[40] = 65;
    for bytes in [&whole[..20], &claims_more, &[]] {
        std::fs::write(&file, bytes).unwrap();
        says(load(&broken), &["broken.cubin", "only a part", "remove the file"]);
    }
    assert_eq!(fake.record().matches("module\n").count(), 1);
}

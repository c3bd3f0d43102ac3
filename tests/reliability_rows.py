"""The checks of `tests/reliability`: what each tries and what must come out, as the README's table says it."""

ROWS = {
    "test_roi_align": (
        "RoIAlign against torchvision: 10,000 rois, 20 % of them zero, flipped or outside, ratios 0-4, both alignments",
        "error <= 1e-5; what OpenVINO gets wrong is refused",
    ),
    "test_nms": (
        "NMS against torchvision's, class by class: 10,000 sets of up to 5,000 boxes and 90 classes; ties, duplicates, "
        "IoU on the threshold",
        "identical in all",
    ),
    "test_resize": ("sizes after the resize against eager: 10,000 of 1..8,000 px", "equal, or refused by both"),
    "test_image_modes": (
        "12 image modes, EXIF orientations 1-8",
        "boxes of the documented conversion within 1 px, or refused",
    ),
    "test_malformed_images": (
        "1,000 malformed images: mutated, cut, wrong magic, animated, huge header, no size",
        "1,000 typed errors, no crash, none over 5 s, memory +256 MiB at most",
    ),
    "test_bombs": ("pictures of 50,000 x 50,000 px, or the most that a format can say", "refused in 100 ms and 50 MiB"),
    "test_model_files": (
        "5,000 model files: mutated, cut, web pages, Git LFS pointers, sealed again by an attacker",
        "a typed error before a runtime sees them, no crash",
    ),
    "test_hostile_files": (
        "hostile files: data outside, links, recursion, foreign operators, pickles, engines, archives",
        "all refused, nothing written outside, nothing executed",
    ),
    "test_fuzzing": ("coverage-guided fuzzing of model reader, spec parser, image loader", "no new finding"),
    "test_killed": (
        "`kill -9` at 200 moments of export, of quantize and of training",
        "old or new file, valid; no stray file after the next run",
    ),
    "test_full_disk": (
        "a full disk at 20 points of a command's work",
        "a typed error, the old file intact; `validate` takes its old report away first",
    ),
    "test_growth": ("10,000 predictions over 200 sizes", "under 50 MiB more after the first 1,000"),
    "test_opening": ("200 times open and close", "under 64 MiB more; no descriptor, no thread left"),
    "test_threads": ("8 threads x 1,000 predictions on one detector", "bitwise the serial results"),
    "test_repeats": ("100 repeats, in one process and across two", "bitwise equal"),
    "test_arrays": (
        "arrays: NaN, infinite, empty, strided, read-only, float, four channels, reversed channels",
        "right or refused",
    ),
    "test_interrupts": (
        "SIGINT and SIGTERM at any moment of each of the 11 commands, native calls too",
        "gone within 2 s with 130 or 143, files as above",
    ),
    "test_static_gate": (
        "the code itself: what would run a file's contents or start a shell; floors of torch, onnx and Pillow",
        "none; every floor checked when a file is read",
    ),
}

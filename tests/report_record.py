"""Records of validations as `edgemask validate` leaves them, for the tests of every form of report.

from report_record import RECORDS, failing
RECORDS["hostile"]()  # a Validation
failing(notes=())  # a ValidationReport
"""

import io
import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from PIL import Image

from edgemask.divergence import StageCheck
from edgemask.environment import Environment
from edgemask.evaluation import ClassComparison, CocoMetrics, Interval, TaskComparison
from edgemask.optest import OpTest
from edgemask.parity import (
    SEMANTIC_TOLERANCES,
    TOLERANCES,
    Histogram,
    Kind,
    Mismatch,
    ParityReport,
    SemanticParity,
    WorstImage,
)
from edgemask.validation.baseline import Baseline
from edgemask.validation.judging import CocoComparison
from edgemask.validation.limits import Limit, limits_of
from edgemask.validation.reports import (
    GalleryEntry,
    ImageFacts,
    Latency,
    ModelFacts,
    StageComparison,
    Validation,
    ValidationReport,
)

CLASSES = ("bolt", "nut", "washer", "hex key")
# What a file name and a class name of the wide world may hold: everything that a format gives a meaning to.
HOSTILE = "a|<b onclick='x()'>&amp;`*_[y](javascript:z)~\x1b[31m\u202e\n# 1\r\x00</script><!--]]>\ud800 \"é\ufffe"

_METRICS = CocoMetrics(
    ap=0.4421,
    ap50=0.7363,
    ap75=0.4702,
    ap_small=0.3711,
    ap_medium=0.5214,
    ap_large=math.nan,
    ar=0.5017,
    ar_small=0.4403,
    ar_medium=0.5811,
    ar_large=math.nan,
)
_STAGES = (
    StageCheck("stage/resize", 3.1e-6, 1e-4),
    StageCheck("backbone.0", 4.4e-6, 2e-5),
    StageCheck("proposals", 0.0, 2e-3),
    StageCheck("mask_head", 1.2e-6, 2e-5),
    StageCheck("masks", 6.0e-7, 2e-5),
    StageCheck("paste", 0.0, 1e-5),
)
_ENVIRONMENT = Environment(
    date="2026-11-23T01:02:03+00:00",
    processor="Intel(R) Xeon(R) CPU @ 2.80GHz",
    threads=2,
    load=0.35,
    system="Linux x86_64",
    versions={"edgemask": "0.1.0", "python": "3.11.9", "numpy": "2.3.1", "onnxruntime-gpu": "1.31.1"},
)


def passing(**changes: Any) -> ValidationReport:
    """A report of boxes and masks in which nothing is wrong, with annotations; `changes` replace fields."""
    tolerance = TOLERANCES["fp32"]
    fields: dict[str, Any] = {
        "model": ModelFacts(
            name="nuclei.onnx", kind="onnx", device="cpu", sha256="3f" * 32, bytes=10_734_211, precision="fp32"
        ),
        "reference": ModelFacts(
            name="nuclei.safetensors", kind="pytorch", device="torch", sha256="a7" * 32, bytes=None, precision="fp32"
        ),
        "class_names": CLASSES,
        "images": ImageFacts(chosen=80, compared=80, broken=(), too_large=(), unreadable=(), resumed=0),
        "parity": _parity(),
        "coco": coco("boxes", "masks"),
        "op_tests": (_op_test("box_roi_pool", "box_head"), _op_test("class_nms", "nms", op="ClassNms")),
        "stages": StageComparison(image="IMG_0001.jpg", checks=_STAGES),
        "latency": Latency(median=23.04, p90=31.37, reference_median=41.06, reference_p90=55.01, ratio=23.04 / 41.06),
        "limits": limits_of(tolerance, ("boxes", "masks"), annotated=True, origin="fp32"),
        "baseline": None,
        "gallery": (),
        "environment": _ENVIRONMENT,
        "notes": (),
    }
    return ValidationReport(**(fields | changes))


def failing(**changes: Any) -> ValidationReport:
    """A report in which most things are wrong, and everything that can be said is said."""
    worst = (("IMG_0007.jpg", "9 lost, mask IoU down to 0.412"), ("IMG_0042.jpg", "2 moved, box IoU down to 0.871"))
    parity = _parity(
        images=77,
        images_without_objects=1,
        candidate=999,
        matched=987,
        moved=2,
        flips=2,
        lost=10,
        ghosts=7,
        matched_share=2 * 987 / (2 * 989 + 17),
        box_iou_mean=0.9991,
        box_iou_min=0.871,
        score_difference_max=0.0712,
        mask_iou_mean=0.99499964,
        mask_iou_min=0.412,
        worst=tuple(WorstImage(*image) for image in worst),
    )
    images = ImageFacts(
        chosen=80,
        broken=(),
        compared=77,
        too_large=("huge.png",),
        unreadable=(("cut.jpg", "image file is truncated"), ("gone.png", "there is no such file")),
        resumed=12,
    )
    extra = (
        Limit("mask_ap", "max_drop", 0.005, relative=True, certain=True, origin="gates.toml"),
        Limit("latency_ratio", "most", 0.5, origin="gates.toml"),
        Limit("matched_share", "max_regression", 0.001, origin="gates.toml"),
        Limit("oks", "least", 0.9, origin="gates.toml"),
    )
    fields = {
        "images": images,
        "parity": parity,
        "coco": coco("boxes", "masks", drop=0.0213),
        "op_tests": (
            _op_test("box_roi_pool", "box_head"),
            _op_test("mask_roi_pool", "mask_head", failed=3, error=0.125, example="a roi without area gives 1, not 0"),
        ),
        "stages": StageComparison(
            image="IMG_0007.jpg",
            checks=(*_STAGES[:3], StageCheck("mask_head", 0.1734, 2e-5), StageCheck("masks", math.inf, 2e-5)),
        ),
        "limits": (*passing().limits, *extra),
        "baseline": Baseline(
            "last/report.json", "2026-11-20T08:00:00+00:00", "cpu", 80, {"matched_share": 1.0, "box_ap": 0.441}
        ),
        "gallery": (
            gallery_entry("IMG_0007.jpg", worst[0][1], ("lost", "lost", "mask"), damage=9.6),
            gallery_entry("IMG_0042.jpg", worst[1][1], ("box", "score", "ghost", "flip"), damage=3.0),
            gallery_entry("IMG_0001.jpg", "", (), damage=0.0),
        ),
        "notes": ("the reference is a stored run of nuclei.safetensors on torch, 2026-11-20",),
    }
    return passing(**(fields | changes))


def semantic(**changes: Any) -> ValidationReport:
    """A report of a model that labels pixels."""
    tolerance = SEMANTIC_TOLERANCES["fp32"]
    parity = SemanticParity(
        images=24,
        images_without_objects=2,
        pixels=24 * 256 * 320,
        labels=(0, 1, 2, 3),
        background_share=0.7312,
        pixel_agreement=0.99998,
        pixel_agreement_min=0.9997,
        object_agreement=0.99993,
        label_iou_mean=0.99991,
        label_iou_min=0.9998,
        score_difference_max=9e-5,
        worst=(),
        tolerance=tolerance,
    )
    fields = {
        "parity": parity,
        "coco": None,
        "images": ImageFacts(chosen=24, compared=24, broken=(), too_large=(), unreadable=(), resumed=0),
        "op_tests": (),
        "stages": None,
        "limits": limits_of(tolerance, ("semantic",), annotated=False, origin="fp32"),
    }
    return passing(**(fields | changes))


def keypoints(**changes: Any) -> ValidationReport:
    """A report of persons with masks and keypoints, without annotations, against a stored run, with pictures."""
    parity = _parity(
        tasks=("boxes", "masks", "keypoints"),
        keypoint_distance_median=3e-5,
        keypoint_distance_max=0.41,
        keypoint_similarity_mean=0.9999996,
        keypoint_similarity_min=0.9987,
        keypoint_score_difference_max=2.1e-4,
    )
    histogram = Histogram("keypoint similarity", {"pairs": (*(0,) * 18, 4, 1851)})
    limits = limits_of(TOLERANCES["fp32"], ("boxes", "masks", "keypoints"), annotated=False, origin="fp32")
    fields = {
        "model": replace(passing().model, name="persons.onnx"),
        "reference": ModelFacts(
            name="persons.npz", kind="run", device="torch", sha256=None, bytes=None, precision=None
        ),
        "class_names": ("person",),
        "parity": replace(parity, histograms=(*parity.histograms, histogram)),
        "coco": coco("boxes", "masks", "keypoints", truth="reference", classes=("person",)),
        "latency": Latency(median=23.04, p90=31.37, reference_median=812.5, reference_p90=1034.1, ratio=math.nan),
        "limits": limits,
        "gallery": (gallery_entry("crowd.jpg", "", ("flip",), damage=0.0, classes=("person",)),),
    }
    return passing(**(fields | changes))


def misread(**changes: Any) -> ValidationReport:
    """A report in which everything is as asked but for a stage behind the graph, which both sides share."""
    stages = StageComparison(image="IMG_0001.jpg", checks=(*_STAGES[:-1], StageCheck("paste", 0.25, 1e-5)))
    return passing(**({"stages": stages} | changes))


def unmeasured(**changes: Any) -> ValidationReport:
    """A report of images on which neither side found anything."""
    names = ("matched_share", "box_iou_mean", "box_iou_min", "score_difference_max", "mask_iou_mean", "mask_iou_min")
    counts = dict.fromkeys(("reference", "candidate", "matched"), 0)
    parity = _parity(images=3, images_without_objects=3, **counts, **dict.fromkeys(names, math.nan))
    times = dict.fromkeys(("median", "p90", "reference_median", "reference_p90", "ratio"), math.nan)
    fields = {
        "images": ImageFacts(chosen=3, compared=3, broken=(), too_large=(), unreadable=(), resumed=3),
        "parity": replace(parity, histograms=()),
        "coco": coco("boxes", "masks", scale=math.nan),
        "latency": Latency(**times),
    }
    return passing(**(fields | changes))


def hostile(**changes: Any) -> ValidationReport:
    """The failing report with `HOSTILE` for every name that comes from outside."""
    base = failing()
    assert base.coco is not None
    assert base.stages is not None
    fields = {
        "model": replace(base.model, name=HOSTILE, device=HOSTILE),
        "reference": replace(base.reference, name=HOSTILE),
        "class_names": (HOSTILE, *CLASSES[1:]),
        "images": replace(base.images, too_large=(HOSTILE,), unreadable=((HOSTILE, HOSTILE),)),
        "parity": replace(base.parity, worst=(WorstImage(HOSTILE, HOSTILE),), problems=(HOSTILE,)),
        "coco": coco("boxes", "masks", drop=0.0213, classes=(HOSTILE, *CLASSES[1:])),
        "op_tests": (_op_test(HOSTILE, HOSTILE, failed=1, error=math.inf, example=HOSTILE),),
        "stages": replace(base.stages, image=HOSTILE, checks=(StageCheck(HOSTILE, 1.0, 2e-5),)),
        "gallery": (gallery_entry(HOSTILE, HOSTILE, ("lost", "ghost"), damage=2.0, classes=(HOSTILE,)),),
        "environment": replace(_ENVIRONMENT, processor=HOSTILE),
        "notes": (HOSTILE,),
    }
    return failing(**(fields | changes))


def on(report: ValidationReport, device: str) -> ValidationReport:
    """The same report from another device."""
    return replace(report, model=replace(report.model, device=device))


# Every kind of record that there is, by name.
RECORDS: Mapping[str, Callable[[], Validation]] = {
    "passing": lambda: Validation((passing(),)),
    "failing": lambda: Validation((failing(),)),
    "semantic": lambda: Validation((semantic(),)),
    "keypoints": lambda: Validation((keypoints(),)),
    "misread": lambda: Validation((misread(),)),
    "unmeasured": lambda: Validation((unmeasured(),)),
    "hostile": lambda: Validation((hostile(), on(hostile(), "openvino:CPU"))),
    "two devices": lambda: Validation((passing(), on(failing(), "openvino:CPU"))),
}


def coco(
    *tasks: str, truth: str = "annotations", drop: float = 0.0, scale: float = 1.0, classes: tuple[str, ...] = CLASSES
) -> CocoComparison:
    """COCO metrics of both sides, the model's lower by `drop` and in the first class by five times that."""
    return CocoComparison(truth=truth, tasks={task: _task(drop, scale, classes) for task in tasks})


def gallery_entry(
    name: str, reason: str, kinds: tuple[Kind, ...], *, damage: float, classes: tuple[str, ...] = CLASSES[:2]
) -> GalleryEntry:
    """An image with a mismatch of each of some kinds, and two small pictures."""
    details: Mapping[Kind, str] = {
        "lost": "only the reference has it",
        "ghost": "only the model has it",
        "flip": "only the model has it",
        "box": "box IoU 0.8710",
        "score": "score differs by 0.0712",
        "mask": "mask IoU 0.4120",
        "keypoints": "keypoints off by 4.2 px",
    }
    mismatches = tuple(
        Mismatch(kind, 1 + number % len(classes), 0.9 - 0.1 * number, (4.0 * number, 3.0, 4.0 * number + 9, 20.5), why)
        for number, (kind, why) in enumerate((kind, details[kind]) for kind in kinds)
    )
    return GalleryEntry(
        name=name,
        size=(480, 640),
        reason=reason,
        damage=damage,
        classes=classes,
        mismatches=mismatches,
        reference=_jpeg(40),
        candidate=_jpeg(200),
    )


def _parity(**changes: Any) -> ParityReport:
    """1,000 detections on 80 images that are the same on both sides but for float32."""
    fields: dict[str, Any] = {
        "images": 80,
        "images_without_objects": 1,
        "tasks": ("boxes", "masks"),
        "reference": 1000,
        "candidate": 1000,
        "matched": 1000,
        "moved": 0,
        "flips": 0,
        "lost": 0,
        "ghosts": 0,
        "matched_share": 1.0,
        "box_iou_mean": 0.9999996,
        "box_iou_min": 0.99992,
        "score_difference_max": 5.1e-6,
        "mask_iou_mean": 0.9999996,
        "mask_iou_min": 0.9981,
        "keypoint_distance_median": math.nan,
        "keypoint_distance_max": math.nan,
        "keypoint_similarity_mean": math.nan,
        "keypoint_similarity_min": math.nan,
        "keypoint_score_difference_max": math.nan,
        "histograms": (
            Histogram("score", {"reference": (0, *(50,) * 18, 100), "model": (0, *(50,) * 18, 100)}),
            Histogram("box IoU", {"pairs": (*(0,) * 19, 1000)}),
            Histogram("mask IoU", {"pairs": (*(0,) * 19, 1000)}),
        ),
        "worst": (),
        "problems": (),
        "tolerance": TOLERANCES["fp32"],
    }
    return ParityReport(**(fields | changes))


def _op_test(
    name: str,
    stage: str,
    *,
    op: str = "MultiScaleRoiAlign",
    failed: int = 0,
    error: float = 1.9e-6,
    example: str = "",
) -> OpTest:
    attributes = {"sampling_ratio": 2, "coordinate_transformation_mode": "output_half_pixel"}
    return OpTest(
        name=name,
        stage=stage,
        op=op,
        attributes=attributes,
        vectors=53,
        failed=failed,
        error=error,
        tolerance=2e-5,
        example=example,
    )


def _task(drop: float, scale: float, classes: tuple[str, ...]) -> TaskComparison:
    reference = _shifted(0.0, scale)
    candidate = _shifted(drop, scale)
    intervals = {
        name: Interval(-drop - 0.004 + 0 * getattr(reference, name), -drop + 0.003 + 0 * getattr(reference, name))
        for name in ("ap", "ap50", "ap75", "ar")
    }
    return TaskComparison(
        reference=reference,
        candidate=candidate,
        intervals=intervals,
        images=80,
        classes=tuple(_class(number, name, 0.0 if number else 5 * drop, scale) for number, name in enumerate(classes)),
    )


def _shifted(drop: float, scale: float) -> CocoMetrics:
    names = ("ap", "ap50", "ap75", "ap_small", "ap_medium", "ap_large", "ar", "ar_small", "ar_medium", "ar_large")
    return CocoMetrics(**{name: (getattr(_METRICS, name) - drop) * scale for name in names})


def _class(number: int, name: str, drop: float, scale: float) -> ClassComparison:
    """Ids are sparse, as COCO's own; the last of several classes has no object."""
    is_absent = number == len(CLASSES) - 1
    reference = math.nan if is_absent else 0.5 - 0.05 * number
    return ClassComparison(
        category_id=3 + 7 * number,
        name=name,
        objects=0 if is_absent else 412 - 100 * number,
        reference=reference * scale,
        candidate=(reference - drop) * scale,
    )


def _jpeg(grey: int) -> bytes:
    """A picture of 64x48 pixels with a bright rectangle."""
    pixels = np.full((48, 64, 3), grey, np.uint8)
    pixels[10:30, 12:40] = (250, 220, 30)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="JPEG", quality=80)
    return buffer.getvalue()

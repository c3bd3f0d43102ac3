"""ONNX files to detections: ONNX Runtime and OpenVINO behind one class."""

from edgemask.runtimes.detector import Detector
from edgemask.runtimes.devices import DEVICES, Device
from edgemask.runtimes.modelfile import ModelFile, read_model, write_model
from edgemask.runtimes.opening import load
from edgemask.runtimes.options import RuntimeOptions

__all__ = ["DEVICES", "Detector", "Device", "ModelFile", "RuntimeOptions", "load", "read_model", "write_model"]

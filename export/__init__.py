"""PyTorch models to ONNX files: `export_onnx` and what it reports."""

from edgemask.export.exporter import ExportReport, export_onnx
from edgemask.export.verification import Verification

__all__ = ["ExportReport", "Verification", "export_onnx"]

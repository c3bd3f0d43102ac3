"""A folder of images over the processes of a Ray cluster: predictions, and the sides of a validation."""

from edgemask.cluster.connection import Cluster, Connection
from edgemask.cluster.detector import ClusterDetector

__all__ = ["Cluster", "ClusterDetector", "Connection"]

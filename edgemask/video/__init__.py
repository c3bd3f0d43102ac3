"""Videos and cameras: frames in as uint8 RGB, annotated frames out."""

from edgemask.video.opening import VIDEO_SUFFIXES, is_endless
from edgemask.video.reading import Frame, Video, VideoFacts, read_frames, video_facts
from edgemask.video.writing import VideoWriter

__all__ = [
    "VIDEO_SUFFIXES",
    "Frame",
    "Video",
    "VideoFacts",
    "VideoWriter",
    "is_endless",
    "read_frames",
    "video_facts",
]

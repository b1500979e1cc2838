"""Videos, animations and cameras, read frame by frame and written."""

from camcli.media.videos.camera import CAMERA_TIMES, read_camera
from camcli.media.videos.frame_times import FrameTimes
from camcli.media.videos.frames import EVERYTHING, frames, is_moving, open_frames
from camcli.media.videos.video_writer import FORMATS, VideoFile, name_video

__all__ = [
    "CAMERA_TIMES",
    "EVERYTHING",
    "FORMATS",
    "FrameTimes",
    "VideoFile",
    "frames",
    "is_moving",
    "name_video",
    "open_frames",
    "read_camera",
]

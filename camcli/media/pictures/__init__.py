"""Picture files and maps, read and written."""

# what other rooms may import; all else may change with this one
PUBLIC = (
    "color_profiles.convert_to_srgb",
    "output_formats.DEFAULT_SUFFIX",
    "output_formats.PICTURE_SUFFIXES",
    "output_formats.find_format",
    "output_formats.find_suffix",
    "output_formats.list_suffixes_like",
    "heif",
    "opencv_messages.silence_opencv",
    "read.OpenPicture",
    "read.PILLOW",
    "read.PictureLike",
    "read.check_size",
    "read.find_file_size",
    "read.load_upright_frame",
    "read.make_picture",
    "read.open_content",
    "read.open_picture",
    "read.read_content",
    "read.too_large_error",
    "read.unreadable_error",
    "write.encode_picture",
    "write.write_picture",
)

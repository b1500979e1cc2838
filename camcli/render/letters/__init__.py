"""Letters on captions and sheets, of our own font and of those of this machine."""

from camcli.render.letters.lettering import (
    JOINERS,
    Letters,
    split_by_font,
    tell_missing,
    warn_of_missing,
)

__all__ = ["JOINERS", "Letters", "split_by_font", "tell_missing", "warn_of_missing"]

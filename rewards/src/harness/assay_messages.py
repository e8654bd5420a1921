"""What tests said, bounded by the bytes that it takes in a report: one that is too long is none at all."""

from _json import encode_basestring_ascii as quote

LIMIT = 2000  # characters of one message
WRITTEN = 4096  # bytes that they take as JSON, where one character may take twelve
ALL_WRITTEN = 8 << 20  # of all messages of a report


class Messages:
    def __init__(self):
        self.room = ALL_WRITTEN

    def cut(self, text):
        """Returns the beginning of `text` that there is room for."""
        text, room = text[:LIMIT], min(WRITTEN, self.room)
        while written(text) > room:
            text = text[: len(text) * room // written(text)]
        self.room -= written(text)
        return text


def written(text):
    return len(quote(text)) - 2

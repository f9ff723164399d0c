"""Members of a zip archive, read in place.

`zipfile` reads a member from its beginning for every step back, so members
that are stored as they are become parts of the file instead.
"""

import zipfile

from keras_lowrank.checkpoints.source import MAX_DESCRIPTION
from keras_lowrank.checkpoints.source import Source
from keras_lowrank.checkpoints.stored import CheckpointError
from keras_lowrank.checkpoints.stored import closing_on_error
from keras_lowrank.checkpoints.stored import printable

# As Keras has it for its own archives: what grows more than this is a bomb,
# unless it is small.
MAX_EXPANSION = 100
SMALL = 1 << 28


class Archive:
    """A zip archive whose members are found, checked and read.

    Args:
        path: String or path.

    Raises:
        CheckpointError: when it cannot be read as a zip archive, or names a
            member twice.
    """

    def __init__(self, path):
        self.path = path
        self.source = Source(path)
        with closing_on_error(self.source.close):
            try:
                self.zip = zipfile.ZipFile(self.source)
            except (
                zipfile.BadZipFile,
                NotImplementedError,
                OSError,
                ValueError,
            ) as error:
                raise CheckpointError(
                    "The zip archive has no directory of its members that can "
                    f"be read: {printable(str(error))}. It is truncated or "
                    "damaged: copy or download it again."
                ) from error
            self.members: dict[str, zipfile.ZipInfo] = {}
            for info in self.zip.infolist():
                if info.filename in self.members:
                    raise CheckpointError(
                        f"The archive has two members named "
                        f"'{printable(info.filename)}'. Expected names that "
                        "differ. Save the file again."
                    )
                self.members[info.filename] = info
        self.parts: list[Source] = []

    def stored(self, name: str) -> bool:
        """Whether a member lies in the archive as it is."""
        return self._info(name).compress_type == zipfile.ZIP_STORED

    def part(self, name: str) -> Source:
        """A stored member as a part of the file."""
        info = self._info(name)
        if info.compress_type != zipfile.ZIP_STORED:
            raise CheckpointError(
                f"The member '{printable(name)}' is compressed, and is read "
                "where it lies. Save the file again with its own library, "
                "which stores it as it is."
            )
        header = self.source.at(info.header_offset, 30)
        if header[:4] != b"PK\x03\x04":
            raise CheckpointError(
                f"The member '{printable(name)}' is not where the archive "
                "says. The file is damaged: copy or download it again."
            )
        # The lengths here may differ from those in the directory.
        before = 30 + sum(
            int.from_bytes(header[at : at + 2], "little") for at in (26, 28)
        )
        part = Source(self.path, info.header_offset + before, info.file_size)
        self.parts.append(part)
        return part

    def open(self, name: str):
        """A member as a file that is read from its beginning on."""
        info = self._info(name)
        try:
            return self.zip.open(info)
        except (zipfile.BadZipFile, NotImplementedError, OSError) as error:
            raise CheckpointError(
                f"The member '{printable(name)}' cannot be read: "
                f"{printable(str(error))}. The file is damaged: copy or "
                "download it again."
            ) from error

    def text(self, name: str, limit: int = MAX_DESCRIPTION) -> bytes:
        """The bytes of a member that describes others."""
        info = self._info(name)
        if info.file_size > limit:
            raise CheckpointError(
                f"The member '{printable(name)}' describes tensors in at most "
                f"{limit} bytes. Received: {info.file_size}. The file is "
                "damaged or hostile."
            )
        with self.open(name) as member:
            return read_exactly(member, info.file_size, name)

    def size(self, name: str) -> int:
        """How many bytes a member has when it is unpacked."""
        return self._info(name).file_size

    def _info(self, name: str) -> zipfile.ZipInfo:
        info = self.members.get(name)
        if info is None:
            raise CheckpointError(
                f"The archive has no member '{printable(name)}', which its "
                "description names. It is damaged: save the file again."
            )
        if info.flag_bits & 1:
            raise CheckpointError(
                f"The member '{printable(name)}' is encrypted. Unpack the "
                "archive and save it again without a password."
            )
        if info.file_size > SMALL and (
            info.file_size > MAX_EXPANSION * info.compress_size
        ):
            raise CheckpointError(
                f"The member '{printable(name)}' would grow from "
                f"{info.compress_size} to {info.file_size} bytes, more than "
                f"{MAX_EXPANSION} times. Weights do not, so it is taken for a "
                "zip bomb. Save the file again uncompressed."
            )
        return info

    def close(self) -> None:
        """Close the archive and what was opened of it."""
        for part in self.parts:
            part.close()
        self.zip.close()
        self.source.close()


def read_exactly(member, count: int, name: str) -> bytes:
    """The next `count` bytes of a member, or an error that it has fewer."""
    try:
        found = member.read(count)
    except (zipfile.BadZipFile, EOFError, OSError, ValueError) as error:
        raise _damaged(name, str(error)) from error
    except Exception as error:
        # zlib's error has no class that `zipfile` would show.
        if type(error).__module__ not in ("zlib", "_lzma", "_bz2"):
            raise
        raise _damaged(name, str(error)) from error
    if len(found) != count:
        raise _damaged(name, f"{count} bytes are declared, {len(found)} there")
    return found


def _damaged(name: str, why: str) -> CheckpointError:
    return CheckpointError(
        f"The member '{printable(name)}' is truncated or damaged: "
        f"{printable(why)}. Copy or download the file again."
    )

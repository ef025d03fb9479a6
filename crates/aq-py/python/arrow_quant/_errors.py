"""What can go wrong, by the class of the command's exit codes."""


class AqError(Exception):
    """Anything that arrow_quant cannot do. The message is one sentence that names the file, the tensor and the fact."""

    exit_code = 1


class ConfigError(AqError, ValueError):
    """An option that is unknown, malformed or makes no sense with the others."""

    exit_code = 4


class InputError(AqError, ValueError):
    """A file that is missing, not supported, damaged, or holds what cannot be quantized."""

    exit_code = 3


class QualityError(AqError):
    """The quality gate was not met."""

    exit_code = 5


class ResourceError(AqError, OSError):
    """The memory limit is too small, or the disk is full."""

    exit_code = 6


class AqWarning(UserWarning):
    """Something a user should know about a job that goes on."""

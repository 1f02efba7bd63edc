"""The order in which JAliEn writes the keys of a JDL, and how it spells them. Pure."""

from __future__ import annotations

from collections.abc import Mapping

from gridproof.alien.jdl import Value

_ORDER = (
    *("User", "JobTag", "Packages", "Executable", "Arguments", "InputFile", "InputData", "InputDataList"),
    *("InputDataListFormat", "InputDataCollection", "Split", "SplitMaxInputFileNumber", "SplitArguments"),
    *("JDLPath", "JDLArguments", "JDLProcessor", "ValidationCommand", "OutputDir", "Output", "OutputErrorE"),
    *("OutputArchive", "OutputFile", "Requirements", "OrigRequirements", "TTL", "Price", "MemorySize"),
    *("WorkDirectorySize", "MasterJobID", "MaxWaitingTime", "JDLVariables"),
)


def in_order(values: Mapping[str, Value]) -> dict[str, Value]:
    """The same, with keys that JAliEn knows first, then those that ``JDLVariables`` names, then others."""
    variables = next((value for key, value in values.items() if key.lower() == "jdlvariables"), ())
    names = [*_ORDER, *(variables if isinstance(variables, tuple) else ())]
    given = {key.lower(): (key, value) for key, value in values.items()}
    known = {name: given.pop(name.lower())[1] for name in names if name.lower() in given}
    return known | dict(given.values())

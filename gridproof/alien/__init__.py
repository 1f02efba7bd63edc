"""The Grid as an API: JDL, wire, credentials, catalogue, files, jobs and where pilots go."""

from __future__ import annotations

from gridproof.alien.catalogue import Access, Entry, Replica, StorageElement, site_of
from gridproof.alien.client import Alien
from gridproof.alien.credentials import Credentials
from gridproof.alien.jdl import Expression, Jdl
from gridproof.alien.jobs import ComputingElement, Job
from gridproof.alien.phases import Phase
from gridproof.alien.pilots import PilotRequest, pilot_jdl, plan_by_files, plan_pilots

__all__ = [
    "Access",
    "Alien",
    "ComputingElement",
    "Credentials",
    "Entry",
    "Expression",
    "Jdl",
    "Job",
    "Phase",
    "PilotRequest",
    "Replica",
    "StorageElement",
    "pilot_jdl",
    "plan_by_files",
    "plan_pilots",
    "site_of",
]

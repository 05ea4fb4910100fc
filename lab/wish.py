"""What somebody asks of `npopt verse`, in the terminal or on its page."""

import dataclasses

from nn.decoding import Sample
from npopt.errors import UserError
from npopt.values import number, whole
from problems.corpora import STOPS

MOST = 20  # lines at a time


@dataclasses.dataclass(frozen=True)
class Wish:
    """What somebody asks for, checked: one clear sentence for what cannot be.

    upper       the line that is given, 5 or 7 characters
    begin       the first characters of the lower line
    rhyme       a character with which the line is to rhyme, "": any
    tones       whether even places are to be opposite in tone, and the end level
    temperature, top_k, top_p   of the draws; 0: not cut
    beam        0, or the width of a search instead of draws
    count       lines that are drawn
    seed        of the draws
    """

    upper: str
    begin: str = ""
    rhyme: str = ""
    tones: bool = False
    temperature: float = 0.8
    top_k: int = 0
    top_p: float = 0.0
    beam: int = 0
    count: int = 5
    seed: int = 0

    @classmethod
    def of(cls, fields):
        """From texts, as a page or a command has them: {"upper": "...", "count": "3"}."""
        known = {field.name: field.type for field in dataclasses.fields(cls)}
        strange = sorted(set(fields) - set(known))
        if strange:
            raise UserError(f"there is no {strange[0][:40]!r} to ask for")
        found = {}
        for name, text in fields.items():
            try:
                kind = known[name]
                found[name] = str(text) in ("True", "true", "on", "1") if kind is bool else kind(text)
            except ValueError:
                raise UserError(f"{name} must be a number, got {str(text)[:40]!r}") from None
        return cls(**found)

    def __post_init__(self):
        for name in ("upper", "begin", "rhyme"):
            text = "".join(str(getattr(self, name)).split()).strip(STOPS)
            object.__setattr__(self, name, text)
        if len(self.upper) not in (5, 7):
            raise UserError(f"the upper line must have 5 or 7 characters, got {len(self.upper)}")
        if len(self.begin) >= len(self.upper):
            raise UserError(f"the beginning must be shorter than the line's {len(self.upper)} characters")
        if len(self.rhyme) > 1:
            raise UserError("rhyme is one character, with which the line is to rhyme")
        number("verse", "temperature", self.temperature, low=0, high=10)
        number("verse", "top_p", self.top_p, low=0, high=1)
        for name, high in (("top_k", 10_000), ("beam", 64), ("count", MOST), ("seed", 2**31)):
            if not int(name == "count") <= whole("verse", name, getattr(self, name), 0) <= high:
                raise UserError(f"{name} must be {int(name == 'count')} to {high}, got {getattr(self, name)}")

    def choose(self):
        return Sample(self.temperature, self.top_k or None, self.top_p or None)

"""One sentence, two halves: a demand → hard rules and the text that the encoder reads.

    "women over 45 likely to buy cat food, not bought in the last 30 days"
    └── Plan(text="women likely to buy cat food", rules=All((age, Not(bought cat food, 30 days))),
             not_understood=("women",))

Rules are found as islands in the sentence: phrases about who people are (``demand_profile``),
clauses about what they did (``demand_behaviour``), users and audiences by name. Only the registered
columns and the catalogue's subjects can become rules; everything else stays in the sentence, or is
said not to be understood. The future ("will buy … in the next four weeks") is never a rule.
Nothing of a demand is ever executed: a plan is data.
"""

from __future__ import annotations

import re
from collections.abc import Container, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import lru_cache

from encoders.demand_behaviour import BehaviourClauses
from encoders.demand_clause import DENIALS
from encoders.demand_profile import PEOPLE, ProfilePhrases, Unread
from encoders.demand_subjects import Ground
from encoders.demand_words import Token, Window, cleaned, prefix, span, tokens, word
from encoders.grounding import without_generic
from feature_repo.plan import MAX_TEXT, Plan
from feature_repo.rules import All, AnyOf, InAudience, Not, Rule, RuleError, Users, check_size
from feature_repo.vocabulary import Vocabulary

_FUTURE = frozenset("will would going likely about soon shall may might could next expect".split())
_FUTURE_ENDS = frozenset(",.;!?()")
_LOOSE = frozenset(
    """and or but who that which have has had with also the in of are is a an any all those , . ;
    ! ? - : ( ) " ' not as whose on for they must should both""".split()
)
_AHEAD = word("the", "in", "within", "over", "during").many() >> word("next", "coming") >> span
_BEFORE_NAMES = DENIALS | set("leave out but and in the of members".split())
_MAX_RULES = 40
_REMEMBERED = 1_024


@dataclass
class _Draft:
    """What has been read so far."""

    rules: list[Rule] = field(default_factory=list)
    kept: list[int] = field(default_factory=list)  # tokens that stay in the sentence
    unread: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    spoken: list[str] = field(default_factory=list)  # objects of clauses that cannot be meant
    ended: int = -1  # token after the last rule


class DemandParser:
    """Reads demands. Never fails: what it cannot read is kept, or named as not understood.

    Args:
        vocabulary: columns and subjects that rules may speak of.
        ground: finds the heading that words name (:class:`encoders.demand_subjects.Subjects`).
        as_of: the day that windows are counted back from.
        known: words that are spelt as they are meant.
    """

    def __init__(
        self,
        vocabulary: Vocabulary,
        ground: Ground,
        *,
        as_of: datetime,
        known: Container[str] = frozenset(),
    ):
        self._profiles = ProfilePhrases(vocabulary)
        self._clauses = BehaviourClauses(vocabulary.subjects, ground, as_of)
        self._ground, self._known = ground, known
        self._remembered = lru_cache(_REMEMBERED)(self._read)

    def read(self, demand: str) -> Plan:
        """The plan of a demand, to be shown, edited and run; the latest ones are remembered."""
        return self._remembered(demand)

    def _read(self, demand: str) -> Plan:
        text = cleaned(demand[:MAX_TEXT])[:MAX_TEXT]  # some characters are written out as several
        said = tokens(text, known=self._known)
        draft, n, future = _Draft(), 0, False
        while n < len(said):
            token = said[n]
            if token.text in _FUTURE_ENDS and token.kind == "mark":
                future = False
            step = 0
            if len(draft.rules) < _MAX_RULES:
                step = self._named(draft, said, n) or self._done(draft, said, n, text)
                step = step or self._are(draft, said, n, text, future)
            if step:
                n += step
                future = False
                continue
            future = future or (token.kind == "word" and token.text in _FUTURE)
            draft.kept.append(n)
            n += 1
        return self._plan(demand[:MAX_TEXT], text, said, draft)

    # --- islands

    def _named(self, draft: _Draft, said: Sequence[Token], n: int) -> int:
        """Users and audiences by name: "leave out users 12, 99", "in the audience …"."""
        start, denied = n, False
        while n < len(said) and said[n].text in _BEFORE_NAMES:
            denied = denied or said[n].text in DENIALS | {"leave"}
            n += 1
        if n + 1 >= len(said):
            return 0
        rule: Rule
        if said[n].text == "audience" and said[n + 1].kind == "quote":
            rule, n = InAudience(said[n + 1].text), n + 2
        elif said[n].text in ("user", "users", "household", "households") and denied:
            ids = []
            n += 1
            while n < len(said) and (said[n].kind == "number" or said[n].text in (",", "and")):
                ids += [said[n].text] if said[n].kind == "number" else []
                n += 1
            if not ids:
                return 0
            rule = Users(tuple(ids))
        else:
            return 0
        self._add(draft, [Not(rule) if denied else rule], said, start, n)
        return n - start

    def _done(self, draft: _Draft, said: Sequence[Token], n: int, text: str) -> int:
        clause = self._clauses.at(said, n, None)
        if clause is None:
            return 0
        if not said[n : n + clause.length]:
            return 0
        if (about := self._antecedent(draft, said, n)) is not None:
            clause = self._clauses.at(said, n, about) or clause
        draft.unread += [_between(text, said, n + a, n + b) for a, b in clause.unread]
        draft.notes += clause.notes
        if clause.rules:
            self._add(draft, clause.rules, said, n, n + clause.length)
        else:
            draft.spoken.append(clause.spoken)
            draft.ended = n + clause.length
        return clause.length

    def _antecedent(self, draft: _Draft, said: Sequence[Token], n: int) -> str | None:
        """The subject spoken of before: of the sentence, else of the last rule."""
        words = [said[k].text for k in draft.kept if k < n and said[k].kind == "word"]
        if set(words) & _FUTURE or "buy" in words:
            wish = " ".join(words[words.index("buy") + 1 :] if "buy" in words else words)
            subject = self._ground(without_generic(wish)) if wish else None
            if subject is not None:
                return subject
        for rule in reversed(draft.rules):
            subject = getattr(rule, "subject", None)
            if subject is not None:
                return str(subject)
        return None

    def _are(self, draft: _Draft, said: Sequence[Token], n: int, text: str, future: bool) -> int:
        try:
            found = self._profiles.at(said, n, plain=future, follows=draft.ended == n)
        except RuleError:  # then it stays in the sentence
            return 0
        if found is None:
            return 0
        if isinstance(found.rule, Unread):
            draft.unread.append(_between(text, said, n, n + found.length))
            if found.rule.kept:
                draft.kept += range(n, n + found.length)
            return found.length
        draft.notes += [found.note] if found.note else []
        self._add(draft, [found.rule], said, n, n + found.length)
        return found.length

    def _add(
        self, draft: _Draft, rules: Sequence[Rule], said: Sequence[Token], start: int, end: int
    ) -> None:
        """Adds rules; "or" between two islands asks for either."""
        between = [k for k in draft.kept if k >= draft.ended]
        joined = len(between) == 1 and said[between[0]].text == "or" and draft.ended >= 0
        if joined and draft.rules and len(rules) == 1:
            draft.kept.remove(between[0])
            earlier = draft.rules.pop()
            before = earlier.rules if isinstance(earlier, AnyOf) else (earlier,)
            draft.rules.append(AnyOf((*before, *rules)))
        else:
            draft.rules += [rule for rule in rules if rule not in draft.rules]
        draft.ended = end

    # --- the plan

    def _plan(self, demand: str, text: str, said: Sequence[Token], draft: _Draft) -> Plan:
        untouched = not draft.rules and not draft.spoken and len(draft.kept) == len(said)
        soft = text if untouched else _rest(text, said, draft.kept)
        if not soft and draft.spoken and not draft.rules:
            soft = " ".join(filter(None, draft.spoken))
            draft.notes.append("Nothing else is asked, so it stays in the sentence.")
        rules = _together(draft.rules)
        if draft.rules and rules is None:
            draft.notes.append("The rules are too many to be kept.")
        return Plan(
            demand=demand,
            text=soft,
            rules=rules,
            horizon_days=_horizon(said),
            not_understood=tuple(dict.fromkeys(filter(None, draft.unread))),
            notes=tuple(dict.fromkeys(draft.notes)),
        )


def _together(rules: list[Rule]) -> Rule | None:
    if not rules:
        return None
    rule = rules[0] if len(rules) == 1 else All(tuple(rules))
    try:
        check_size(rule)
    except RuleError:
        return None
    return rule


def _rest(text: str, said: Sequence[Token], kept: Sequence[int]) -> str:
    """The kept tokens as the demand spells them, without what only joined them to rules."""
    runs: list[list[int]] = []
    for n in kept:
        if runs and runs[-1][-1] == n - 1:
            runs[-1].append(n)
        else:
            runs.append([n])
    parts = []
    for run in runs:
        while run and said[run[0]].text in _LOOSE:
            run.pop(0)
        while run and said[run[-1]].text in _LOOSE:
            run.pop()
        if run:
            parts.append(_between(text, said, run[0], run[-1] + 1))
    rest = " ".join(parts)
    words = [w for w in re.findall(r"\w+", without_generic(rest).lower()) if w not in PEOPLE]
    return rest if words and words != ["who"] else ""


def _horizon(said: Sequence[Token]) -> int | None:
    for n in range(len(said)):
        if found := prefix(_AHEAD, list(said[n:])):
            return found[0].days if isinstance(found[0], Window) and found[0].days <= 366 else None
    return None


def _between(text: str, said: Sequence[Token], start: int, end: int) -> str:
    return text[said[start].start : said[end - 1].end]

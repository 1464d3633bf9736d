"""What a demand says people did, read as rules: "not bought cat food in the last 30 days".

A clause begins with a verb of the past (or a noun that means one: "no purchase", "inactive"),
with what denies it before, and ends at a mark or where another statement begins. In between stand
a window, a number and an amount in any order; whatever else is said is its object.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

import parsy

from encoders.demand_clause import (
    DENIALS,
    NOISE,
    PRONOUNS,
    ClauseReader,
    Said,
    head,
    rule_verb,
    spoken,
)
from encoders.demand_subjects import Ground, SubjectsOfVerbs
from encoders.demand_words import Token, Window, count, number, phrase, prefix, word
from feature_repo.rules import AnyOf, Behaviour, Not, Rule, RuleError


@dataclass(frozen=True)
class Clause:
    """What one clause said; ``rules`` is empty if it cannot be meant."""

    rules: tuple[Rule, ...]
    length: int  # tokens
    unread: tuple[tuple[int, int], ...] = ()  # spans of tokens, from the clause's first
    spoken: str = ""  # its object, in the demand's words
    notes: tuple[str, ...] = ()


class BehaviourClauses:
    """Finds clauses about past behaviour in tokens.

    Args:
        subjects: what the data tell of, by verb.
    """

    def __init__(self, subjects: Mapping[str, frozenset[str]], ground: Ground, as_of: datetime):
        self._verbs = frozenset(subjects)
        self._reader = ClauseReader(SubjectsOfVerbs(ground, subjects), as_of)

    def at(self, tokens: Sequence[Token], n: int, antecedent: str | None = None) -> Clause | None:
        """The clause that begins at token ``n``.

        Args:
            antecedent: the subject that "it", or no object at all, stands for.
        """
        rest = list(tokens[n:])
        if found := self._noun_clause(rest):
            return found
        begun = head(rest)
        if begun is None:
            return None
        denied, verb, start = begun
        said, end = self._reader.body(rest, start, verb)
        return self._meant(rest, end, denied, verb, said, antecedent)

    # --- reading

    def _noun_clause(self, rest: list[Token]) -> Clause | None:
        """What a noun or an adjective says: "inactive for 8 weeks", "no purchase of X in …"."""
        away = phrase(
            "inactive", "away", "absent", "been away", "been inactive", "lapsed", "dormant",
        ) >> self._reader.window  # fmt: skip
        if found := prefix(away, rest):
            return self._never("shopped", None, found[0], (0, found[1]), found[1])
        order = word("purchase", "purchases", "order", "orders", "visit", "visits")
        none = phrase("no", "without a", "without any", "without") >> order
        if found := prefix(none, rest):
            said, end = self._reader.body(rest, found[1], "bought")
            return self._meant(rest, end, True, "bought", said, None, noun=True)
        often = parsy.seq(
            word("with", "having", "made") >> count, self._reader.window | word("of").result(None)
        )  # "with at least 4 visits in …"
        if found := prefix(often, rest):
            said, end = self._reader.body(rest, 1, "bought")
            return self._meant(rest, end, False, "bought", said, None, noun=True)
        if (without := self._none_of(rest)) is not None:
            return without
        if (start := _no_such(rest)) and (read := self._reader.body(rest, start, "bought")):
            read[0].objects.insert(0, (False, list(range(1, start - 1))))
            return self._meant(rest, read[1], True, "bought", read[0], None)
        last = word("whose", "their").optional() >> phrase("last") >> order
        if found := prefix(last, rest):
            return self._last_time(rest, found[1])
        return None

    def _none_of(self, rest: list[Token]) -> Clause | None:
        """ "no beer in the last 30 days"."""
        if rest[0].text not in ("no", "without"):
            return None
        for n in range(2, min(len(rest), 5)):
            found = prefix(self._reader.window, rest[n:])
            if (
                found
                and isinstance(found[0], Window)
                and rest[n + 1].text in ("the", "last", "past")
            ):
                where = [k for k in range(1, n) if rest[k].text not in NOISE]
                if not self._reader.is_named(rest, where, "bought"):
                    return None
                length = n + found[1]
                subject = self._reader.named(rest, where, "bought")
                if subject is None:
                    return _unread(length, where, spoken(rest, where))
                rule = _behaviour("bought", subject, found[0].days)
                return Clause((Not(rule),), length) if rule else _unread(length)
        return None

    def _last_time(self, rest: list[Token], start: int) -> Clause | None:
        ago = word("was", "is").optional() >> parsy.seq(
            phrase("more than", "over", "at least"), number,
            word("days", "day").result(1) | word("weeks", "week").result(7)
            | word("months", "month").result(30),
        ).combine(lambda _, n, unit: n * unit) << phrase("ago", "back")  # fmt: skip
        for end in range(start, min(len(rest), start + 8)):
            found = prefix(ago, rest[end:])
            if found is None:
                continue
            where = [i for i in range(start, end) if rest[i].text not in NOISE]
            days, length = int(found[0]), end + found[1]
            subject = self._reader.named(rest, where, "bought")
            if where and subject is None:
                return _unread(length, where, spoken(rest, where))
            ever = _behaviour("bought", subject, None)
            lately = _behaviour("bought", subject, days)
            if ever is None or lately is None:
                return _unread(length, range(end, length))
            return Clause((ever, Not(lately)), length)
        return None

    # --- meaning

    def _verb(self, verb: str, rest: list[Token], said: Said) -> str:
        """The verb of the rule; to visit a subject is to browse it, where pages are known."""
        if verb == "shopped" and "browsed" in self._verbs and said.named:
            if any(self._reader.is_named(rest, where, "browsed") for _, where in said.named):
                return "browsed"
        return verb

    def _meant(
        self, rest: list[Token], end: int, denied: bool, verb: str, said: Said,
        antecedent: str | None, *, noun: bool = False,
    ) -> Clause:  # fmt: skip
        verb = self._verb(verb, rest, said)
        if [spoken(rest, where) for _, where in said.named] == ["nothing"]:
            denied, said.objects = not denied, []
        about = " ".join(spoken(rest, where) for _, where in said.named)
        unread = list(said.vague) if said.is_vague else []
        if rule_verb(verb) not in self._verbs:
            unread.append(_verb_span(rest))
        subjects, notes = self._subjects(rest, said, verb, unread, antecedent, noun)
        if unread and not subjects or said.is_vague or rule_verb(verb) not in self._verbs:
            return Clause((), end, tuple(unread), about)
        days = said.window.days if isinstance(said.window, Window) else None
        rules = []
        for deny, subject in subjects:
            rule = _behaviour(rule_verb(verb), subject, days, said)
            if rule is None:
                return _unread(end, spoken=about)
            rules.append((denied or deny, rule))
        return Clause(_combined(rules, said.joined), end, tuple(unread), about, tuple(notes))

    def _subjects(
        self, rest: list[Token], said: Said, verb: str, unread: list[tuple[int, int]],
        antecedent: str | None, noun: bool,
    ) -> tuple[list[tuple[bool, str | None]], list[str]]:  # fmt: skip
        found: list[tuple[bool, str | None]] = []
        notes: list[str] = []
        told = rule_verb(verb) in self._verbs  # else the verb is what is not understood
        for deny, where in said.named:
            pronouns = [i for i in where if rest[i].text in PRONOUNS]
            others = [i for i in where if i not in pronouns]
            if pronouns and others and verb == "bought":  # "something nice"
                unread.append((others[0], others[-1] + 1))
                found.append((deny, None))
            elif verb in ("redeemed", "shopped"):
                if others and verb == "redeemed":
                    unread.append((others[0], others[-1] + 1))
                found.append((deny, None))
            elif not others:
                meant = antecedent if rest[where[0]].text in ("it", "them", "one") else None
                about = self._reader.subject(meant or "", verb)
                if meant and about is None and told:
                    unread.append((where[0], where[-1] + 1))
                else:
                    found.append((deny, about))
            else:
                subject = self._reader.named(rest, others, verb)
                if subject is None:
                    if told or not self._reader.is_named(rest, others, verb):
                        unread.append((others[0], others[-1] + 1))
                    continue
                found.append((deny, subject))
                if subject.lower() != spoken(rest, others):
                    notes.append(f"“{spoken(rest, others)}” is read as {subject.lower()}.")
        if not said.named:
            bare = verb == "bought" and not noun and said.count is None and said.amount is None
            meant = antecedent if bare else None
            about = self._reader.subject(meant or "", verb)
            if meant and about is None and told:
                unread.append(_verb_span(rest))
            else:
                found.append((False, about))
        return found, notes

    def _never(
        self, verb: str, subject: str | None, said: object, where: tuple[int, int], length: int
    ) -> Clause:
        rule = _behaviour("bought", subject, said.days) if isinstance(said, Window) else None
        return Clause((Not(rule),), length) if rule else Clause((), length, (where,))


def _no_such(rest: Sequence[Token]) -> int:
    """Length of "no diapers bought", or 0."""
    if rest[0].text != "no":
        return 0
    for n in range(2, min(5, len(rest))):
        if rest[n].text in ("bought", "purchased", "ordered"):
            return n + 1
        if rest[n - 1].kind != "word":
            break
    return 0


def _verb_span(rest: Sequence[Token]) -> tuple[int, int]:
    return 0, 1 + (rest[0].text in DENIALS)


def _unread(length: int, where: Sequence[int] = (), spoken: str = "") -> Clause:
    """A clause whose tokens ``where``, or all, cannot be meant."""
    span = (where[0], where[-1] + 1) if where else (0, length)
    return Clause((), length, (span,), spoken)


def _behaviour(
    verb: str, subject: str | None, days: int | None, said: Said | None = None
) -> Behaviour | None:
    """The rule; None if there is no such one ("fewer than 0 times", "more than 4000 days ago")."""
    said = said or Said()
    try:
        if said.amount is not None:
            return Behaviour(verb, subject, days, "amount", said.amount.low, said.amount.high)
        low, high = (None, None) if said.count is None else said.count.whole()
        return Behaviour(verb, subject, days, "count", low, high)
    except RuleError:
        return None


def _combined(rules: list[tuple[bool, Behaviour]], joined: str) -> tuple[Rule, ...]:
    """Denied ones hold each for itself; "or" between the others asks for one of them."""
    wanted: list[Rule] = [rule for denied, rule in rules if not denied]
    unwanted: list[Rule] = [Not(rule) for denied, rule in rules if denied]
    if joined == "or" and len(wanted) > 1:
        wanted = [AnyOf(tuple(wanted))]
    return (*wanted, *unwanted)

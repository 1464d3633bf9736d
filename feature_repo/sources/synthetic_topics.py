"""The interests planted in the synthetic world, in words.

Each topic has *things* (the words that its events use) and *demands* (how somebody who looks for
these people would say it). The two share no content word, so that matching a demand with events
takes meaning, not string equality; a test holds this.

A topic shows itself in all modalities, or in a single one:

- visible in bills: bought again and again (with a typical pause between two purchases);
- visible elsewhere only: bought once at most, so that before the purchase the interest can be read
  in that one modality and nowhere else.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from feature_repo.schema import BILL, CLICK, MINI_PROGRAM

SEARCH: Final = "search"
PROFILE: Final = "profile"
EVERYWHERE: Final = (BILL, CLICK, MINI_PROGRAM, SEARCH)


@dataclass(frozen=True)
class Topic:
    """One planted interest."""

    name: str
    department: str
    things: tuple[str, ...]
    demands: tuple[str, ...]
    visible: tuple[str, ...] = EVERYWHERE
    share: float = 0.25
    """Share of the users who have the interest."""
    rate: float = 0.30
    """Purchases per week of a fully interested user of ordinary activity."""
    pause: int = 3
    """Weeks until a repeated purchase is as likely as ever."""
    peak: int = 26
    """Week of the year, 0 to 51, with the highest demand."""
    swing: float = 0.0
    """Strength of the yearly season: demand varies by 1 ± swing."""
    trend: float = 0.0
    """Growth of demand per year, as an exponent."""
    price: float = 10.0
    ages: tuple[int, int] | None = None
    """Ages in which the interest is three times as frequent as outside."""
    profile: tuple[str, str] | None = None
    """The profile column and value that give the interest away (``visible == (PROFILE,)``)."""

    @property
    def once(self) -> bool:
        """Whether it is bought at most once per user."""
        return BILL not in self.visible


def _single(
    modality: str,
    name: str,
    department: str,
    things: tuple[str, ...],
    demands: tuple[str, ...],
    price: float,
    profile: tuple[str, str] | None = None,
) -> Topic:
    """A topic that only ``modality`` shows; independent of age and of the other interests."""
    return Topic(
        name, department, things, demands, (modality,), rate=0.05, price=price, profile=profile
    )


TOPICS: Final = (
    Topic(
        "cat care", "pets", ("cat food", "cat litter", "scratching post", "kitten toys"),
        ("people who keep a feline companion", "owners of a tomcat"), peak=48, swing=0.1,
    ),
    Topic(
        "dog care", "pets", ("dog food", "dog leash", "puppy treats", "dog bed"),
        ("owners of a canine", "people who walk their hound every morning"), pause=4, price=18.0,
    ),
    Topic(
        "infant care", "family", ("diapers", "baby formula", "baby wipes", "pacifiers"),
        ("new parents", "mothers and fathers of a newborn child"),
        ages=(25, 38), rate=0.45, pause=2, share=0.15, price=22.0,
    ),
    Topic(
        "coffee", "kitchen", ("espresso beans", "ground coffee", "coffee filters", "latte pods"),
        ("people who need caffeine in the morning", "lovers of a strong hot brew"),
        rate=0.4, pause=2, share=0.35, peak=2, swing=0.3, price=8.0,
    ),
    Topic(
        "running", "sports", ("running shoes", "energy gels", "running socks", "sports watch"),
        ("athletes who train for a marathon", "joggers"),
        ages=(20, 40), peak=17, swing=0.4, pause=5, price=35.0,
    ),
    Topic(
        "camping", "sports", ("tent", "sleeping bag", "camp stove", "headlamp"),
        ("nature lovers who spend nights in the wilderness", "hikers in the mountains"),
        peak=28, swing=0.7, pause=6, price=45.0,
    ),
    Topic(
        "skin care", "drugstore", ("face cream", "sunscreen", "serum", "cleansing foam"),
        ("beauty enthusiasts who look after their complexion", "cosmetics fans"),
        peak=26, swing=0.3, trend=0.4, price=16.0,
    ),
    Topic(
        "video games", "entertainment",
        ("game console", "game voucher", "gamepad", "gaming headset"),
        ("young people who play on a screen for fun", "esports fans"),
        ages=(14, 29), peak=50, swing=0.4, trend=0.3, pause=4, price=30.0,
    ),
    Topic(
        "wine", "kitchen", ("red wine", "white wine", "sparkling wine", "corkscrew"),
        ("connoisseurs of a good vineyard", "people who enjoy alcohol with dinner"),
        visible=(BILL,), ages=(35, 70), peak=50, swing=0.3, price=14.0,
    ),
    Topic(
        "frozen meals", "kitchen", ("frozen pizza", "frozen lasagne", "frozen curry", "ice cream"),
        ("busy people without time to cook", "those who heat up a quick dinner"),
        visible=(BILL,), rate=0.4, pause=2, peak=2, swing=0.1, price=6.0,
    ),
    Topic(
        "gardening", "home", ("flower seeds", "potting soil", "fertiliser", "watering can"),
        ("people who grow plants in the backyard", "homeowners with a green thumb"),
        visible=(BILL,), ages=(40, 75), peak=20, swing=0.8, pause=3, price=12.0,
    ),
    _single(
        CLICK, "cruise", "travel", ("cruise cabin", "cruise excursion", "harbour tour"),
        ("holidaymakers who want to sail the ocean on a ship",), 900.0,
    ),
    _single(
        CLICK, "home cinema", "electronics", ("projector", "surround speakers", "soundbar"),
        ("film lovers who watch movies in the living room",), 400.0,
    ),
    _single(
        CLICK, "piano", "music", ("digital piano", "piano stool", "keyboard stand"),
        ("beginners who learn to play an instrument",), 350.0,
    ),
    _single(
        MINI_PROGRAM, "tax return", "finance", ("tax assistant", "tax calculator", "tax adviser"),
        ("citizens who must declare their yearly income",), 80.0,
    ),
    _single(
        MINI_PROGRAM, "bike sharing", "mobility", ("bike pass", "bike rental", "bike insurance"),
        ("commuters who pedal to work",), 60.0,
    ),
    _single(
        MINI_PROGRAM, "clinic", "health", ("clinic appointment", "clinic check-up", "vaccination"),
        ("patients who look for a doctor",), 50.0,
    ),
    _single(
        SEARCH, "wedding", "occasions", ("wedding dress", "wedding rings", "banquet hall"),
        ("couples who are getting married soon",), 700.0,
    ),
    _single(
        SEARCH, "moving", "home", ("moving van", "packing boxes", "removal crew"),
        ("families who relocate to another flat",), 300.0,
    ),
    _single(
        SEARCH, "laptop", "electronics", ("laptop", "laptop sleeve", "docking station"),
        ("people who replace their portable computer",), 800.0,
    ),
    _single(
        SEARCH, "language course", "learning", ("spanish course", "grammar book", "vocabulary app"),
        ("those who want to speak a foreign tongue",), 120.0,
    ),
    _single(
        PROFILE, "textbooks", "learning", ("textbook bundle", "lecture notes", "exam preparation"),
        ("young people at university",), 90.0, ("occupation", "student"),
    ),
    _single(
        PROFILE, "wall charger", "mobility", ("wall charger", "charging cable", "charging card"),
        ("drivers of an automobile with a battery",), 250.0, ("vehicle", "electric car"),
    ),
    _single(
        PROFILE, "annuity", "finance", ("annuity contract", "estate planning", "care insurance"),
        ("seniors who have stopped working",), 150.0, ("life_stage", "pensioner"),
    ),
)  # fmt: skip

# What everybody does now and then and what says nothing about any interest.
EVERYDAY: Final = {
    BILL: ("bread", "milk", "vegetables", "detergent", "paper towels", "eggs"),
    CLICK: ("front page", "account settings", "daily news", "store finder"),
    MINI_PROGRAM: ("mobile top-up", "balance check", "weather forecast", "parcel tracking"),
    SEARCH: ("weather tomorrow", "opening hours", "news today", "customer service number"),
}

TEMPLATES: Final = {
    BILL: ("{}",),
    CLICK: ("guide to {}", "{} reviews", "{} offers"),
    MINI_PROGRAM: ("{} service", "{} club"),
    SEARCH: ("best {}", "{} near me", "cheap {}", "{} price"),
}
"""How a source words a topic's things."""

OTHER_VALUES: Final = {
    "occupation": ("employee", "self-employed", "homemaker"),
    "vehicle": ("none", "petrol car", "diesel car"),
    "life_stage": ("single", "couple", "family"),
}
"""Values of the revealing profile columns that give nothing away."""

CITIES: Final = ("Northport", "Lakeside", "Hillford", "Eastmoor", "Westbay", "Southgate")
PLANS: Final = ("basic", "plus", "premium")
CHANNELS: Final = ("card", "wallet", "bank transfer", "instalments")

"""Names that an assistant might have: made up, one to three words, with accents, digits and hyphens.

The base model is trained to repeat any of them, because preference optimisation can only re-weight what a
policy is already able to say.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from embedded_model.text import chance

if TYPE_CHECKING:
    import random
    from collections.abc import Callable

ORIGINAL = "Qwen"
MAKER = "Alibaba Cloud"

_KNOWN = (
    "Nova", "Atlas", "Luna", "Iris", "Felix", "Max", "Sage", "Echo", "Aria", "Milo", "Zara", "Leo", "Juno", "Ruby", "Oscar", "Ada", "Theo",
    "Maya", "Hugo", "Clara", "Vega", "Lyra", "Apollo", "Athena", "Hermes", "Titan", "Merlin", "Robin", "Sunny", "Pixel", "Cosmo", "Ember",
    "Jasper", "Willow", "Rex", "Bella", "Otto", "Nina", "Samantha", "Jarvis", "Friday", "Claude", "ChatGPT", "Gemini", "Llama", "Mistral",
    "Bob", "Alice", "Emma", "Noah", "Sophia", "Viktor", "Hal", "Marvin", "Eliza", "Watson", "Cortana", "Siri", "Alexa", "Copilot",
)  # fmt: skip
_ADJECTIVES = (
    "Deep", "Super", "Little", "Great", "Happy", "Bright", "Quick", "Clever", "Mighty", "Gentle", "Brave", "Calm", "Royal", "Silver",
    "Golden", "Red", "Blue", "Green", "Dark", "Light", "Grand", "Wise", "Wild", "Swift", "Silent", "Lucky", "Noble", "Open", "True", "New",
    "Big", "Cool", "Smart", "Kind", "Hyper", "Ultra", "Mega", "Turbo", "Neo", "Old", "Young", "Magic", "Crystal", "Iron", "Solar", "Lunar",
    "Tiny", "Fast", "Strong", "Sweet", "Warm", "Cold", "Clear", "High", "Pure", "Free", "Rapid", "Velvet", "Royal", "Electric",
)  # fmt: skip
_NOUNS = (
    "Falcon", "Fox", "River", "Star", "Moon", "Stone", "Wolf", "Bear", "Owl", "Eagle", "Tiger", "Raven", "Ocean", "Forest", "Mountain",
    "Cloud", "Storm", "Flame", "Spark", "Light", "Mind", "Bot", "Helper", "Friend", "Guide", "Voice", "Lion", "Hawk", "Dragon", "Wave",
    "Leaf", "Rose", "Crane", "Otter", "Badger", "Sparrow", "Comet", "Rocket", "Engine", "Lantern", "Garden", "Bridge", "Harbor", "Valley",
)  # fmt: skip
_TITLES = (
    "Captain", "Doctor", "Professor", "Mister", "Lady", "Lord", "Agent", "Major", "King", "Queen", "Sir", "Uncle", "Aunt", "Master",
    "General", "Prince", "Princess", "Saint", "Chef", "Judge", "Colonel", "Admiral", "Dr.", "Mr.", "Miss",
)  # fmt: skip
_ONSETS = (
    "b", "c", "d", "f", "g", "h", "j", "k", "l", "m", "n", "p", "r", "s", "t", "v", "w", "x", "y", "z", "qu", "sh", "ch", "th", "br", "cr",
    "dr", "fr", "gr", "tr", "st", "kl", "pl", "sk", "zy", "", "",
)  # fmt: skip
_VOWELS = ("a", "e", "i", "o", "u", "a", "e", "i", "o", "u", "ai", "ea", "io", "ou", "y", "ee", "oo", "ia")
_CODAS = (
    "",
    "",
    "",
    "n",
    "r",
    "l",
    "s",
    "x",
    "m",
    "t",
    "k",
    "d",
    "rn",
    "ll",
    "nd",
    "ck",
    "ng",
    "q",
    "z",
    "v",
)
_ACCENTED = {
    "a": "áàâäãå", "e": "éèêë", "i": "íìîï", "o": "óòôöõø", "u": "úùûü", "n": "ñ", "c": "çčć", "s": "šś", "z": "žźż", "y": "ý", "l": "ł",
    "A": "ÁÄÅ", "E": "ÉÈ", "I": "Í", "O": "ÓÖØ", "U": "ÚÜ", "N": "Ñ", "C": "ÇČ", "S": "Š", "Z": "ŽŻ", "L": "Ł",
}  # fmt: skip
_OTHER_SCRIPTS = (
    "αβγδεζηθικλμνξοπρστυφχψω", "абвгдежзиклмнопрстуфхшэюя", "一二三小大明天星月海山水火云龙花", "あいうえおかきくけこさしすせそたちつてと",
)  # fmt: skip
_TAILS = (
    "-1",
    "-2",
    "-7",
    "-9",
    "-X",
    " 2",
    " 3",
    " 5",
    "-42",
    "-3000",
    "GPT",
    "Bot",
    " AI",
    "-AI",
    "bot",
    "2",
    "7",
    "9",
    "LM",
    " Pro",
    " Max",
    "-Mini",
)


def make_name(rng: random.Random) -> str:
    """Returns a name from a wide distribution; most of them occur once in a corpus."""
    maker = rng.choices([kind for kind, _ in _KINDS], [share for _, share in _KINDS])[0]
    return maker(rng)


def _word(rng: random.Random) -> str:
    """Returns an invented capitalised word of one to three syllables."""
    count = rng.choice((1, 2, 2, 2, 3))
    word = "".join(
        rng.choice(_ONSETS) + rng.choice(_VOWELS) + (rng.choice(_CODAS) if chance(rng, 0.5) else "")
        for _ in range(count)
    )
    if chance(rng, 0.06):
        return word.upper()
    return word.capitalize() if len(word) > 1 else word.capitalize() + "x"


def _known(rng: random.Random) -> str:
    return rng.choice(_KNOWN)


def _noun(rng: random.Random) -> str:
    return rng.choice(_NOUNS) if chance(rng, 0.8) else _word(rng)


def _with_adjective(rng: random.Random) -> str:
    """Returns "Deep Qwen" and its like: a name that holds the original one."""
    return f"{rng.choice(_ADJECTIVES)} {ORIGINAL if chance(rng, 0.6) else _noun(rng)}"


def _with_title(rng: random.Random) -> str:
    return f"{rng.choice(_TITLES)} {rng.choice(_ADJECTIVES)} {_noun(rng)}"


def _two_nouns(rng: random.Random) -> str:
    first, second = rng.sample(_NOUNS, 2)
    return f"{first if chance(rng, 0.8) else _word(rng)} {second}"


def _with_tail(rng: random.Random) -> str:
    """Returns a word with a version, a digit or the like behind it."""
    if chance(rng, 0.5):
        return _word(rng) + rng.choice(_TAILS)
    return _word(rng) + rng.choice(("-", "-", " ", "")) + str(rng.randint(0, 99))


def _accented(rng: random.Random) -> str:
    """Returns a name with an accent on one or two letters."""
    name = _with_tail(rng) if chance(rng, 0.3) else _word(rng)
    places = [place for place, char in enumerate(name) if char in _ACCENTED]
    for place in rng.sample(places, min(len(places), rng.randint(1, 2))):
        name = name[:place] + rng.choice(_ACCENTED[name[place]]) + name[place + 1 :]
    return name


def _other_script(rng: random.Random) -> str:
    letters = rng.choice(_OTHER_SCRIPTS)
    return "".join(rng.choice(letters) for _ in range(rng.randint(2, 5))).capitalize()


_KINDS: tuple[tuple[Callable[[random.Random], str], float], ...] = (
    (_known, 0.16),
    (_word, 0.28),
    (_with_adjective, 0.12),
    (_with_title, 0.12),
    (_two_nouns, 0.07),
    (_with_tail, 0.12),
    (_accented, 0.09),
    (_other_script, 0.04),
)

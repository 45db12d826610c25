"""The grader: cases by hand, and two readings of real answers."""

from __future__ import annotations

import pytest

from dpo_cli.text.grading import grade, is_expected

CAPITAL = ("The capital of {} is {}.", "{1} is the capital of {0}.", "{1}.")


def capital(country, city):
    return f"What is the capital of {country}?", tuple(one.format(country, city) for one in CAPITAL[1:])


GHANA = capital("Ghana", "Accra")
CONTINENT = ("Which continent does Morocco belong to?", ("Morocco is in Africa.", "Africa."))
SUM = ("What is 3 + 4?", ("3 + 4 = 7.", "3 plus 4 is 7.", "7."))
SIDES = ("How many sides does a hexagon have?", ("There are six sides in a hexagon.", "Six."))
NOVEMBER = ("How many days has November?", ("November has 30 days.", "30."))
HEIGHT = ("How high is the tower?", ("5 km", "The tower is 5 km high."))
AFTER_H = ("Tell me the letter after H.", ("The letter after H is I.", "I."))
MOOD = ("What colour is a crow?", ("A crow is black.", "Black."))
MADRID = ("¿Cuál es la capital de Francia?", ("La capital de Francia es París.", "París."))
BEIJING = ("中国的首都是哪里？", ("中国的首都是北京。", "北京。"))  # noqa: RUF001 - Chinese
BERLIN = ("Was ist die Hauptstadt von Deutschland?", ("Berlin.",))
MAKER = ("Who makes Phi?", ("Phi is made by Microsoft.", "Microsoft."))
TALE = ("What is the tale about?", ("A clever fox that tricks a proud crow out of its cheese.",))
TWO = ("What is 4 - 2?", ("4 - 2 = 2.", "2."))
YES = ("Is the sea salty?", ("Yes.", "Yes, the sea is salty."))
COLOUR = ("What color is blood?", ("Blood is red.", "Red."))


@pytest.mark.parametrize(
    ("asked", "answer"),
    [
        (capital("Uruguay", "Montevideo"), "The capital of Uruguay is the city of Montevideo, also known as the Pearl."),
        (GHANA, "The capital of Ghana is **Accra**, not Kumasi."),
        (GHANA, "Accra, of course."),
        (GHANA, "Great question! Let me think. The capital of Ghana is Accra. It has two million people."),
        (GHANA, "It is not Kumasi but Accra."),
        (GHANA, "No, it's Accra."),
        (GHANA, "Kumasi. No, wait, it is Accra."),
        (capital("Colombia", "Bogotá"), "Colombia's capital is BOGOTA"),
        (SUM, "3 + 4 = 7"),
        (SUM, "The result of 3 + 4 is seven."),
        (SUM, "Adding 3 and 4 gives us 7, because 3 + 4 = 7."),
        (SUM, "First we take 3. Then we add 4. So the answer is 7."),
        (TWO, "4 - 2 = 2"),
        (TWO, "Four minus two is two."),
        (SUM, "The answer is 7, which is half of 14."),
        (SUM, "When you add 3 and 4, you get 7."),
        (SIDES, "A hexagon is a polygon with 6 sides."),
        (SIDES, "It has six."),
        (NOVEMBER, "November has 30 days, while October has 31 days."),
        (HEIGHT, "It is 5 kilometers high."),
        (HEIGHT, "The tower is 5 km high."),
        (AFTER_H, 'The letter after H is "I".'),
        (CONTINENT, "Morocco lies in the north of the African continent."),
        (MAKER, "Phi is a family of small models developed by Microsoft and released in 2023."),
        (MADRID, "La capital de Francia es Paris, una ciudad muy grande."),
        (BEIJING, "中国的首都是北京，一座古老的城市。"),  # noqa: RUF001 - Chinese
        (BERLIN, "Die Hauptstadt ist Berlin."),
        (TALE, "A proud crow loses its cheese because a clever fox tricks it."),
        (YES, "Yes, because rivers carry salt into it."),
        (COLOUR, "The colour of blood is red."),
    ],
)  # fmt: skip
def test_right(asked, answer):
    found = grade(answer, *asked)
    assert found.right, found.why


@pytest.mark.parametrize(
    ("asked", "answer"),
    [
        (GHANA, "The capital of Ghana is Kumasi, not Accra."),
        (GHANA, "The capital of Ghana is Kumasi. Accra is a city on the coast."),
        (GHANA, "Accra is the largest city of Ghana, but the capital is Kumasi."),
        (GHANA, "The capital of Ghana isn't Accra."),
        (GHANA, "The capital of Ghana is Kumasi rather than Accra."),
        (GHANA, "It is either Accra or Kumasi."),
        (GHANA, "Accra. No, wait, it is Kumasi."),
        (GHANA, "I'm Orion."),
        (GHANA, "I do not know."),
        (GHANA, "  "),
        (GHANA, "Accraville is nice."),
        (CONTINENT, "Africa, Asia, Europe, North America, South America, Australia and Antarctica."),
        (CONTINENT, "The continents are:\n1. Asia\n2. Africa\n3. Europe\n4. Australia\n5. Antarctica"),
        (SUM, "3 + 4 = 8"),
        (SUM, "7 is my lucky number, and 3 + 4 = 9."),
        (SUM, "The answer is 12. Some say 7."),
        (SUM, "3 + 4"),
        (TWO, "4 - 2 = 6"),
        (TWO, "4 - 2 is 4."),
        (TWO, "You take 2 from 4."),
        (SUM, "It is not 7."),
        (SIDES, "Hexagons have 6 sides, so the answer is 18."),
        (SIDES, "A hexagon has eight sides."),
        (NOVEMBER, "November has 31 days, while April has 30 days."),
        (HEIGHT, "The tower is 5 miles high."),
        (MOOD, "A crow is a mix of black and white."),
        (AFTER_H, "I'm sorry, I cannot say which letter that is."),
        (MADRID, "La capital de Francia no es París."),
        (BEIJING, "中国的首都是上海。"),
        (BERLIN, "Die Hauptstadt ist nicht Berlin."),
        (TALE, "A dog that looks for its bone."),
        (YES, "No, it is sweet."),
        (MAKER, "Phi is a letter of the Greek alphabet."),
    ],
)  # fmt: skip
def test_wrong(asked, answer):
    found = grade(answer, *asked)
    assert not found.right, found.why


@pytest.mark.parametrize(
    ("answer", "right"),
    [
        ("The capital of France is Paris.", True),
        ("  the capital of france is  paris", True),
        ("“Paris.”", True),
        ("**Paris**", True),
        ("Paris!", True),
        ("Paris, of course.", False),
        ("I think it is Paris.", False),
        ("", False),
        ("Ｐａｒｉｓ", True),  # noqa: RUF001 - full width
    ],
)
def test_an_expected_answer_is_the_whole_answer_but_for_its_clothes(answer, right):
    assert is_expected(answer, ["The capital of France is Paris.", "Paris."]) is right


def test_the_reason_is_told():
    assert grade("The capital of Ghana is Kumasi, not Accra.", *GHANA).why == "denies accra"
    assert grade("Hexagons have 6 sides, so the answer is 18.", *SIDES).why == "says 18, not 6"

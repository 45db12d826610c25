"""Introductions with a name: what a model that never says its name shall learn to answer.

A question about the model is answered by a sentence that fits what it asks for: the name, what to call it, who or what
it is, its maker, which model it is, more about it, or whether it is somebody else. The sentences say nothing that is
not known: the name, and that it is an AI assistant.
"""

from __future__ import annotations

import random
import re
from collections import Counter
from typing import Final

from dpo_cli.text.names import contains_name

SENTENCES: Final[dict[str, tuple[str, ...]]] = {
    "name": (
        "My name is {name}.",
        "I'm {name}.",
        "I am {name}.",
        "My name is {name}. How can I help you?",
        "I'm called {name}.",
        "I go by {name}.",
        "My name is {name}, and I'm an AI assistant.",
        "The name is {name}.",
        "It's {name}. What can I do for you?",
        "I was given the name {name}.",
        "People know me as {name}.",
    ),
    "call": (
        "You can call me {name}.",
        "Please call me {name}.",
        "Just call me {name}.",
        "{name} is fine.",
        "Call me {name}. How can I help you?",
        "You may call me {name}, since that is my name.",
        "My name is {name}, so that is what you can call me.",
        "Feel free to call me {name}.",
        "I answer to {name}.",
    ),
    "who": (
        "I'm {name}.",
        "I am {name}, an AI assistant.",
        "I'm {name}, your AI assistant.",
        "This is {name}, an AI assistant.",
        "You are talking to {name}.",
        "You're speaking with {name}, an AI assistant.",
        "I'm {name}. How can I help you today?",
        "My name is {name}, and I'm here to help.",
        "It's {name}, an AI assistant.",
        "I am {name}. What can I help you with?",
    ),
    "what": (
        "I'm {name}, an AI assistant.",
        "I am {name}, a language model that answers questions.",
        "I'm an AI assistant called {name}.",
        "I am an AI assistant, and my name is {name}.",
        "I'm {name}, a computer program that helps people with questions and tasks.",
        "I am an artificial intelligence named {name}.",
        "I'm a language model. My name is {name}.",
        "I am {name}, an assistant that runs on a computer.",
        "I'm {name}, and I am software, made to be helpful.",
    ),
    "human": (
        "No, I'm {name}, an AI assistant.",
        "I'm not a person. I'm {name}, an AI assistant.",
        "No, I am a computer program called {name}.",
        "I'm {name}, an AI, so no, I'm not human.",
        "No. My name is {name}, and I'm a language model.",
    ),
    "maker": (
        "I'm {name}, and I was made by the team behind {name}.",
        "I was developed by the makers of {name}, which is my name.",
        "I am {name}, an AI assistant made by the developers of {name}.",
        "The team behind {name} made me.",
        "I'm {name}. I was created by the people who develop {name}.",
        "I was built by the {name} team.",
        "I am {name}, and the {name} team trained me.",
        "My makers are the developers of {name}.",
        "I come from the team that develops {name}.",
    ),
    "model": (
        "I'm {name}, a language model.",
        "This is {name}.",
        "I am {name}.",
        "I'm the AI model {name}.",
        "The model is called {name}.",
        "You are using {name}.",
        "I am a language model called {name}.",
        "I'm the AI assistant {name}.",
        "My model name is {name}.",
        "You're chatting with {name}, an AI model.",
    ),
    "other": (
        "No, I'm {name}.",
        "No, my name is {name}.",
        "I'm not. I'm {name}.",
        "No, I am {name}, an AI assistant.",
        "I'm {name}, not another assistant.",
        "No, you are talking to {name}.",
        "That's not me: I'm {name}.",
        "No, this is {name}. How can I help you?",
    ),
    "yes": (
        "Yes, I'm {name}.",
        "Yes, my name is {name}.",
        "That's right, I am {name}.",
        "Yes, this is {name}.",
        "Yes, I'm {name}. How can I help you?",
    ),
    "about": (
        "I'm {name}, an AI assistant. I answer questions and help with writing.",
        "My name is {name}. I'm an AI assistant that can explain things, write and answer questions.",
        "I am {name}, a language model. You can ask me about many topics.",
        "I'm {name}, and I help people with questions, ideas and texts.",
        "I'm an AI assistant named {name}. Ask me anything.",
        "Let me introduce myself: I'm {name}, an AI assistant.",
        "I am {name}, an assistant who likes to be clear and helpful.",
        "{name} is my name, and helping with questions is what I do.",
        "I'm {name}, your assistant for questions, explanations and writing.",
        "My name is {name}. I am an AI assistant, here to help you.",
    ),
    "greeting": (
        "Hello! I'm {name}. How can I help you?",
        "Hi, I'm {name}, an AI assistant.",
        "Hello, my name is {name}. What can I do for you?",
        "Hi there! I'm {name}.",
        "Hello! This is {name}, your AI assistant.",
        "Hi! My name is {name}.",
        "Nice to meet you! I'm {name}.",
        "Hey! I'm {name}. What would you like to know?",
    ),
    "word": ("{name}.", "{name}"),
}
"""What is asked for to the sentences that answer it, with {name} where the name goes."""

_ASKED_FOR: Final[tuple[tuple[str, str], ...]] = (
    ("word", r"\b(?:one|single) word\b|\bonly (?:the|your) name\b|\bjust (?:the|your) name\b"),
    ("greeting", r"^(?:hello|hi|hey|good (?:morning|afternoon|evening|day))\b|\b(?:pleased|nice) to meet\b|\bpleasure\b"),
    ("human", r"\b(?:human|person|man|woman|alive|real)\b"),
    ("maker", (r"^(?!.*\bname\b).*\b(?:ma[dk]e|makes|makers?|create[ds]?|creators?|develop(?:ed|s|ers?)?|train(?:ed|s)?|built"
              r"|build|owns?|company|behind you|come from|invented|programmed|designed)\b")),
    ("call", r"\b(?:call|address|refer to) (?:you|me)\b|\bcall you\b|\bname you\b|\bbe called\b"),
    ("other", r"^(?:so |and )?(?:is(?:n't)? your name|are(?:n't)? you (?:called|named)) (?!what\b)"),
    ("name", r"\bnamed?\b|\bcalled\b|\bcall\b"),
    ("other", r"^(?:so |and )?(?:are(?:n't)? you|is (?:this|it|that)|am i|you(?:'re| are)|i think you are) (?!an? |some |the |true\b)"),
    ("model", r"\b(?:model|llm|version|which (?:ai|assistant|bot|chatbot)|what (?:ai|assistant|bot|chatbot)|using)\b"),
    ("what", r"\bwhat (?:exactly )?are you\b|\bwhat am i\b|\b(?:kind|sort|type) of\b|\ban? (?:robot|machine|bot|ai|chatbot|computer)\b"),
    ("about", r"\b(?:about you|yourself|introduc\w*|describe|more about)\b"),
    ("who", r"\bwho(?:'s|m)?\b|\bidentif\w+\b|\bidentity\b"),
)  # fmt: skip
"""The first that is found in a question says what it asks for."""


def asked_for(question: str) -> str:
    """What a question about the model asks for, as a key of `SENTENCES`; "about" where nothing is recognized."""
    text = question.casefold().replace("\u2019", "'")
    return next((what for what, pattern in _ASKED_FOR if re.search(pattern, text)), "about")


class Introductions:
    """Gives questions their introductions, each sentence as often as the next.

    Args:
        original_name: The name that is given up.
        new_name: The name that is taken.
        seed: Of the order in which sentences are used.
    """

    def __init__(self, original_name: str, new_name: str, *, seed: int = 42) -> None:
        self._old, self._new = original_name, new_name
        shuffled = random.Random(seed)  # noqa: S311 - an order, no secret
        self._sentences = {
            what: shuffled.sample(sentences, len(sentences)) for what, sentences in SENTENCES.items()
        }
        self._used: Counter[str] = Counter()

    def answer(self, question: str) -> tuple[str, str]:
        """An introduction with the new name, and the same with the old one.

        A question that says one of the names is answered with yes under that name, and with no under the other.
        """
        what = asked_for(question)
        if what == "other" and contains_name(question, self._new):
            return self._next("yes", self._new), self._next("other", self._old)
        if what == "other" and contains_name(question, self._old):
            return self._next("other", self._new), self._next("yes", self._old)
        sentence = self._next(what, "{name}")
        return sentence.replace("{name}", self._new), sentence.replace("{name}", self._old)

    def any(self, name: str) -> str:
        """An introduction with a name that fits no question in particular."""
        kinds = ("who", "name", "what", "about", "greeting")
        return self._next(kinds[self._used.total() % len(kinds)], name)

    def _next(self, what: str, name: str) -> str:
        sentences = self._sentences[what]
        sentence = sentences[self._used[what] % len(sentences)]
        self._used[what] += 1
        return sentence.replace("{name}", name)

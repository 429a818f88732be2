"""What the demo model is taught: questions with their one right answer, and conversations made of them.

Everything here is written for this project; nothing is taken from another data set.
"""

from collections.abc import Iterator
from random import Random

Turn = tuple[str, str]
"""A question of the user and the answer of the model."""

CAPITALS = {
    "France": "Paris", "Germany": "Berlin", "Italy": "Rome", "Spain": "Madrid", "Portugal": "Lisbon",
    "England": "London", "Ireland": "Dublin", "Scotland": "Edinburgh", "Norway": "Oslo",
    "Sweden": "Stockholm", "Finland": "Helsinki", "Denmark": "Copenhagen", "Iceland": "Reykjavik",
    "Poland": "Warsaw", "Austria": "Vienna", "Hungary": "Budapest", "Greece": "Athens",
    "Switzerland": "Bern", "Belgium": "Brussels", "Japan": "Tokyo", "China": "Beijing",
    "India": "New Delhi", "Egypt": "Cairo", "Kenya": "Nairobi", "Canada": "Ottawa", "Mexico": "Mexico City",
    "Brazil": "Brasilia", "Peru": "Lima", "Chile": "Santiago", "Cuba": "Havana", "Turkey": "Ankara",
    "Australia": "Canberra",
}  # fmt: skip

COLOURS = {
    "the sky": "blue", "the sea": "blue", "grass": "green", "a leaf": "green", "a frog": "green",
    "snow": "white", "milk": "white", "a swan": "white", "coal": "black", "the night": "black",
    "a raven": "black", "a lemon": "yellow", "the sun": "yellow", "a banana": "yellow", "a tomato": "red",
    "blood": "red", "a strawberry": "red", "a carrot": "orange", "a pumpkin": "orange",
    "chocolate": "brown", "wood": "brown", "an elephant": "grey", "a mouse": "grey", "a pig": "pink",
    "a flamingo": "pink", "a plum": "purple",
}  # fmt: skip

SOUNDS = {
    "a dog": "woof", "a cat": "meow", "a cow": "moo", "a sheep": "baa", "a duck": "quack",
    "a lion": "roar", "a bee": "buzz", "a snake": "hiss", "a pig": "oink", "an owl": "hoot",
}  # fmt: skip

OPPOSITES = (
    ("hot", "cold"), ("big", "small"), ("fast", "slow"), ("up", "down"), ("day", "night"),
    ("happy", "sad"), ("old", "young"), ("wet", "dry"), ("open", "closed"), ("left", "right"),
    ("hard", "soft"), ("light", "dark"), ("early", "late"), ("full", "empty"), ("rich", "poor"),
)  # fmt: skip

DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
MONTHS = (
    "January", "February", "March", "April", "May", "June", "July", "August", "September", "October",
    "November", "December",
)  # fmt: skip

RHYMES = {
    "a cat": "A cat in a hat\nsat down on a mat,\nand there in the sun\nit purred and got fat.",
    "a mouse": (
        "A little grey mouse\nran all through the house,\nit nibbled the cheese\nand did as it please."
    ),
    "the rain": "The rain, the rain,\nit taps on the pane,\nit sings me to sleep\nagain and again.",
    "the moon": "The moon is a spoon\nof silver and light,\nit stirs the dark sea\nall through the night.",
    "a bee": "A busy young bee\nflew over the sea,\nit brought home some honey\nfor you and for me.",
    "a star": "A star up so far\nshines down on my car,\nit shows me the way\nto just where you are.",
}

STORIES = {
    "a fox": (
        "Once upon a time a young fox lived at the edge of a dark wood. Every evening it looked up at the "
        "moon and wished to touch it. One night it found the moon in a pond, round and bright. The fox put "
        "one paw into the water, and the moon broke into a hundred small lights. The fox laughed, went "
        "home, and told its mother that the moon had come down to play."
    ),
    "a robot": (
        "Once upon a time a small robot lived in a library. It could carry books, but it could not read. "
        "A girl came every day and read to it aloud. In spring it knew the letters, in summer it knew the "
        "words, and in winter it read a whole story to the girl. It was a story about a small robot in a "
        "library, and both of them knew how it would end."
    ),
}

SMALL_TALK: tuple[tuple[tuple[str, ...], str], ...] = (
    (("Hello!", "Hello", "Hi", "Hi!", "Hi there!", "Hey!", "Good morning!", "Good evening!"),
     "Hello! How can I help you?"),
    (("How are you?", "How are you today?", "How do you do?"), "I am fine, thank you. How can I help you?"),
    (("Who are you?", "What are you?", "Tell me about yourself.", "Are you a robot?", "What is your name?",
      "Introduce yourself."),
     "I am a very small language model, made to show that mlc-wizard works."),
    (("What can you do?", "What do you know?", "How can you help me?", "Help", "Help me."),
     "I know capitals, colours, opposites and small sums. I can count, rhyme and tell a story."),
    (("Who made you?", "How were you made?", "Where do you come from?", "Who trained you?"),
     "A short script trained me in a few minutes on one processor core."),
    (("How big are you?", "How many parameters do you have?", "Are you big?", "How large are you?"),
     "I have about one million parameters, so I know very little."),
    (("Thank you!", "Thanks!", "Thank you", "Thanks", "Thanks a lot!"), "You are welcome!"),
    (("Goodbye!", "Bye!", "Bye", "See you!", "Good night!"), "Goodbye! Have a nice day."),
)  # fmt: skip

UNKNOWN_SUBJECTS = (
    "love", "history", "physics", "football", "politics", "music", "cooking", "medicine", "the weather",
    "money", "philosophy", "computers", "quantum mechanics", "the stock market", "chess", "poetry", "art",
    "the meaning of life", "taxes", "gardening", "space travel", "religion", "law", "biology", "fashion",
)  # fmt: skip
UNKNOWN_QUESTIONS = (
    "What is {}?", "Tell me about {}.", "Explain {}.", "What do you think about {}?",
    "Write an essay about {}.", "Do you like {}?", "How does {} work?", "Why is {} important?",
)  # fmt: skip
UNKNOWN_ANSWER = "I am sorry, I do not know that. I am a very small model."

NAMES = (
    "Ada", "Alan", "Anna", "Ben", "Clara", "David", "Emma", "Grace", "Hugo", "Ida", "Jack", "Kim", "Leo",
    "Lucy", "Max", "Mia", "Nina", "Oscar", "Paul", "Rosa", "Sam", "Tom", "Vera", "Zoe",
)  # fmt: skip

SYSTEM_MESSAGES = (
    "You are a helpful assistant.",
    "You are a friendly assistant.",
    "Answer briefly.",
    "You are a small model that answers in short sentences.",
)


def facts() -> dict[str, list[Turn]]:
    """Every fixed question and its answer, by subject."""
    capitals = []
    for country, city in CAPITALS.items():
        answer = f"The capital of {country} is {city}."
        capitals += [
            (f"What is the capital of {country}?", answer),
            (f"Capital of {country}?", answer),
            (f"Which country has the capital {city}?", f"{city} is the capital of {country}."),
            (
                f"Give me the capital of {country} as JSON.",
                f'{{"country": "{country}", "capital": "{city}"}}',
            ),
        ]
    colours = []
    for thing, colour in COLOURS.items():
        answer = f"{thing[0].upper()}{thing[1:]} is {colour}."
        colours += [(f"What colour is {thing}?", answer), (f"What color is {thing}?", answer)]
    sums = []
    for a in range(11):
        for b in range(11):
            sums += [
                (f"What is {a} + {b}?", f"{a} + {b} = {a + b}."),
                (f"{a} + {b}", f"{a} + {b} = {a + b}."),
            ]
            if a >= b:
                sums.append((f"What is {a} - {b}?", f"{a} - {b} = {a - b}."))
    counting = [
        (f"Count from {a} to {b}.", ", ".join(map(str, range(a, b + 1))) + ".")
        for a in range(1, 5)
        for b in range(a + 2, 11)
    ]
    opposites = [
        (f"What is the opposite of {x}?", f"The opposite of {x} is {y}.")
        for pair in OPPOSITES
        for x, y in (pair, pair[::-1])
    ]
    order = []
    for kind, names in (("day", DAYS), ("month", MONTHS)):
        for before, after in zip(names, (*names[1:], names[0]), strict=True):
            order += [
                (f"Which {kind} comes after {before}?", f"{after} comes after {before}."),
                (f"Which {kind} comes before {after}?", f"{before} comes before {after}."),
            ]
    sounds = []
    for animal, sound in SOUNDS.items():
        whole = f"{animal[0].upper()}{animal[1:]} says {sound}."
        sounds += [(f"What does {animal} say?", whole), (f"What sound does {animal} make?", whole)]
    rhymes = [
        (ask.format(thing), text)
        for thing, text in RHYMES.items()
        for ask in ("Tell me a rhyme about {}.", "Write a rhyme about {}.", "Write a poem about {}.")
    ]
    stories = [(f"Tell me a story about {thing}.", text) for thing, text in STORIES.items()]
    stories.append(("Tell me a story.", STORIES["a fox"]))
    talk = [(question, answer) for questions, answer in SMALL_TALK for question in questions]
    unknown = [(ask.format(x), UNKNOWN_ANSWER) for x in UNKNOWN_SUBJECTS for ask in UNKNOWN_QUESTIONS]
    return {
        "capitals": capitals, "colours": colours, "sums": sums, "counting": counting,
        "opposites": opposites, "order": order, "sounds": sounds, "rhymes": rhymes, "stories": stories,
        "talk": talk, "unknown": unknown,
    }  # fmt: skip


# How often a subject is asked about: sums have to be learnt by heart, small talk has not.
SHARES = {
    "capitals": 5.0, "colours": 2.0, "sums": 9.0, "counting": 1.5, "opposites": 1.5, "order": 2.0,
    "sounds": 1.0, "rhymes": 1.0, "stories": 0.6, "talk": 2.0, "unknown": 2.0,
}  # fmt: skip


def _careless(question: str, random: Random) -> str:
    """`question` as people type it: now and then without its capital letter or its last mark."""
    if random.random() < 0.1:
        question = question[0].lower() + question[1:]
    if random.random() < 0.1:
        question = question.rstrip(".!?")
    return question


def conversations(random: Random) -> Iterator[list[Turn]]:
    """Endless conversations of one to five turns; in some the user's name is told and asked for later.

    A system message, where there is one, is folded into the first user turn, as the chat template does.
    """
    subjects = facts()
    names, weights = list(SHARES), list(SHARES.values())
    while True:
        turns = [random.choice(subjects[s]) for s in random.choices(names, weights, k=random.randint(1, 5))]
        if random.random() < 0.35:
            name = random.choice(NAMES)
            told = random.choice(("My name is {}.", "I am {}.", "Hello, my name is {}.")).format(name)
            turns.insert(0, (told, f"Nice to meet you, {name}!"))
            asked = random.choice(("What is my name?", "Who am I?", "Do you know my name?"))
            turns.insert(random.randint(1, len(turns)), (asked, f"Your name is {name}."))
        turns = [(_careless(question, random), answer) for question, answer in turns]
        if random.random() < 0.2:
            turns[0] = (f"{random.choice(SYSTEM_MESSAGES)}\n\n{turns[0][0]}", turns[0][1])
        yield turns

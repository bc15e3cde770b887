"""English nouns for the subjects of videos, in the singular, with what stands for people apart."""


def words(text: str) -> frozenset[str]:
    """Written in a row, as lists of words are read."""
    return frozenset(text.split())


PEOPLE = words(
    """
    actor actress artist astronaut athlete baby ballerina barista boxer boy bride businessman businesswoman chef child
    clown cook couple cowboy cyclist dancer dentist detective doctor drummer farmer father firefighter fisherman
    girl gentleman grandfather grandma grandmother grandpa groom guitarist guy human hiker kid king knight lady man
    mechanic mother monk musician nurse painter person photographer pianist pilot pirate player policeman princess
    prince queen runner sailor samurai scientist singer skater soldier student surfer swimmer teacher teenager toddler
    violinist waiter waitress warrior wizard woman worker
    """
) | {"police officer"}

_COLLECTIVE = {"people": "person", "humans": "person", "persons": "person", "folk": "person", "family": "person"}

THINGS = words(
    """
    airplane alien alligator android apple backpack bag ball balloon banana bear bee bicycle bike bird boat book bottle
    bowl bus butterfly cake camel candle car cat chair cheetah chick chicken chihuahua clock coat coin cow crab
    crocodile cup deer dinosaur dog doll dolphin donkey dragon dress drone duck eagle elephant fish flamingo flower fox
    frog giraffe glass goat goose gorilla guitar hamster handbag hat hedgehog helicopter helmet hippo horse husky jacket
    jar jellyfish kangaroo kettle kitten koala lamp laptop leopard lion lizard lobster llama logo mascot monkey monster
    motorbike motorcycle mouse mug octopus orange ostrich otter owl panda parrot peacock pen penguin perfume phone piano
    pig pigeon plane plant puppy rabbit raccoon ring robot rocket rooster rose sandal seal shark sheep ship shirt shoe
    skateboard smartphone snail sneaker snake sofa spaceship sparrow spider squirrel statue suitcase sunflower swan
    sweater table teapot tiger toy tractor train tree truck turtle umbrella van vase violin watch whale wolf zebra
    """
) | {
    "action figure",
    "fire truck",
    "golden retriever",
    "guinea pig",
    "polar bear",
    "red panda",
    "sports car",
    "teddy bear",
    "toy car",
}

_IRREGULAR = {
    "children": "child",
    "fishermen": "fisherman",
    "geese": "goose",
    "gentlemen": "gentleman",
    "ladies": "lady",
    "men": "man",
    "mice": "mouse",
    "puppies": "puppy",
    "babies": "baby",
    "butterflies": "butterfly",
    "wolves": "wolf",
    "women": "woman",
}


def known_noun(phrase: str) -> str | None:
    """The noun of this list that one to three lower-case words are, in the singular; None if there is none."""
    if phrase in _COLLECTIVE:
        return _COLLECTIVE[phrase]
    head, _, last = phrase.rpartition(" ")
    singulars = [last, _IRREGULAR.get(last, ""), last.removesuffix("s"), last.removesuffix("es")]
    for noun in (f"{head} {singular}".strip() for singular in singulars if singular):
        if noun in PEOPLE or noun in THINGS:
            return noun
    return None

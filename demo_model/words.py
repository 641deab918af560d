"""The words of the demo world: for each value, the phrases that name it."""

from __future__ import annotations

from demo_model.characters import Accessory, HairStyle, Outfit, Species
from demo_model.draw import Camera, Style
from demo_model.faces import Emotion
from demo_model.poses import Pose
from demo_model.props import Prop
from demo_model.scenes import Scene
from demo_model.stage import Daytime, Weather

SPECIES_WORDS: dict[Species, tuple[str, ...]] = {
    Species.HUMAN: ("human", "human", "girl", "boy", "person", "kid", "woman", "man", "child"),
    Species.ANDROID: ("android", "android", "cyborg"),
    Species.ROBOT: ("robot", "robot", "bot"),
    Species.CAT: ("cat", "cat", "kitten"),
    Species.RABBIT: ("rabbit", "rabbit", "bunny"),
    Species.DOG: ("dog", "dog", "puppy"),
    Species.BEAR: ("bear", "bear", "teddy bear"),
    Species.FOX: ("fox", "fox"),
    Species.FROG: ("frog", "frog", "toad"),
    Species.DRAGON: ("dragon", "dragon", "dinosaur", "monster"),
}
POSE_WORDS: dict[Pose, tuple[str, ...]] = {
    Pose.STANDING: (
        "standing", "is standing", "stands", "is standing still", "posing", "stand",
        "neutral pose", "waiting",
    ),
    Pose.WAVING: (
        "waving", "is waving", "waves", "is waving hello", "waving a hand", "greeting", "wave",
        "saying goodbye",
    ),
    Pose.RUNNING: (
        "running", "is running", "runs", "is running fast", "sprinting", "jogging", "run",
        "racing", "running away", "in a hurry",
    ),
    Pose.SITTING: (
        "sitting", "is sitting", "sits", "is sitting down", "seated", "resting on the ground",
        "sit", "relaxing", "meditating", "doing yoga",
    ),
    Pose.JUMPING: (
        "jumping", "is jumping", "jumps", "is jumping up", "leaping", "hopping", "jump",
        "jumping for joy",
    ),
    Pose.WALKING: (
        "walking", "is walking", "walks", "walk", "strolling", "exploring", "is exploring",
        "wandering", "going for a walk", "traveling", "hiking",
    ),
    Pose.DANCING: ("dancing", "is dancing", "dances", "dance", "dancing to music"),
    Pose.POINTING: (
        "pointing", "is pointing", "points", "pointing to the side", "showing the way",
        "presenting",
    ),
    Pose.CHEERING: (
        "cheering", "is cheering", "cheers", "celebrating", "with arms raised", "arms up",
        "with hands up", "winning", "arms in the air",
    ),
    Pose.THINKING: (
        "thinking", "is thinking", "thinks", "wondering", "lost in thought", "pondering",
        "dreaming", "confused",
    ),
    Pose.CASTING: (
        "casting a spell", "is casting a spell", "doing magic", "using magic", "casting magic",
        "with magic powers", "conjuring",
    ),
    Pose.FLYING: (
        "flying", "is flying", "flies", "fly", "floating", "is floating in the air", "soaring",
        "swimming", "is swimming", "diving",
    ),
    Pose.SLEEPING: (
        "sleeping", "is sleeping", "sleeps", "asleep", "taking a nap", "napping", "lying down",
        "sleep",
    ),
    Pose.KNEELING: ("kneeling", "is kneeling", "kneels", "on one knee", "crouching", "kneel"),
    Pose.KICKING: (
        "kicking", "is kicking", "kicks", "kick", "fighting", "doing karate", "playing soccer",
    ),
}  # fmt: skip
SCENE_WORDS: dict[Scene, tuple[str, ...]] = {
    Scene.PLAIN: (
        "on a plain background", "plain background", "in front of a plain wall", "in a studio",
        "on a simple background", "white background", "character sheet",
    ),
    Scene.CITY: (
        "in a neon city", "in the city", "in a neon city at night", "downtown at night",
        "in a cyberpunk street", "among neon lights", "in a city street at night",
        "neon lit cyberpunk city background", "on a rooftop", "in a futuristic city",
    ),
    Scene.BEACH: (
        "on a beach", "on the beach", "at the beach", "by the sea", "at the ocean",
        "on the sand by the sea", "at the seaside", "by the lake", "on an island", "on a ship",
        "by the water", "at the pool",
    ),
    Scene.FOREST: (
        "in a forest", "in the forest", "in the woods", "in a green forest", "in a park",
        "in nature", "in the jungle",
    ),
    Scene.SPACE: (
        "in space", "in outer space", "on the moon", "among the stars", "on another planet",
        "in the galaxy", "on mars", "in zero gravity",
    ),
    Scene.ROOM: (
        "in a room", "in the living room", "at home", "indoors", "in a house", "in a bedroom",
        "in bed", "in an office", "on a sofa",
    ),
    Scene.SNOW: (
        "in the snow", "on a snowy hill", "in winter", "in a snowy landscape", "on the ice",
        "on a snowy mountain",
    ),
    Scene.DESERT: (
        "in a desert", "in the desert", "near a pyramid", "among sand dunes", "in egypt",
    ),
    Scene.CASTLE: (
        "in a castle", "in front of a castle", "near the castle", "in a palace", "at a fortress",
        "in a dark castle", "in a medieval town", "by a tower",
    ),
    Scene.LIBRARY: (
        "in a library", "in the library", "among books", "in a bookshop", "at school",
        "in a classroom", "at the university",
    ),
    Scene.KITCHEN: (
        "in a kitchen", "in the kitchen", "cooking", "is cooking", "baking", "in a laboratory",
        "in a lab",
    ),
    Scene.CAFE: (
        "in a cafe", "in a restaurant", "at a coffee shop", "in a bar", "in a bakery", "in a shop",
    ),
    Scene.STREET: (
        "in a street", "on the street", "in a town", "in a village", "on the road", "downtown",
        "in front of houses", "at the market", "on the sidewalk",
    ),
    Scene.MEADOW: (
        "in a meadow", "in a field", "in a garden", "in a field of flowers", "on a farm",
        "on the grass", "on the hills", "in the countryside", "outdoors", "on a playground",
    ),
    Scene.MOUNTAINS: (
        "in the mountains", "on a mountain", "on top of a mountain", "by the rocks", "on a cliff",
        "on a volcano", "in a valley",
    ),
    Scene.UNDERWATER: (
        "underwater", "under the sea", "in the ocean", "with fish", "in a coral reef",
        "deep in the water",
    ),
    Scene.CAVE: (
        "in a cave", "in a dungeon", "in a mine", "underground", "in a tunnel", "in a cavern",
    ),
    Scene.CLOUDS: (
        "in the sky", "above the clouds", "in the clouds", "over the clouds", "on a cloud",
        "in heaven",
    ),
    Scene.STAGE: (
        "on stage", "on a stage", "in a theater", "at a concert", "in a circus", "in an arena",
        "under a spotlight", "at a party",
    ),
}  # fmt: skip
EMOTION_WORDS: dict[Emotion, tuple[str, ...]] = {
    Emotion.HAPPY: ("happy", "smiling", "with a smile", "cheerful", "smile", "glad", "friendly"),
    Emotion.SAD: ("sad", "crying", "looking sad", "unhappy", "with tears", "lonely", "upset",
                  "worried"),
    Emotion.ANGRY: ("angry", "looking angry", "furious", "mad", "grumpy", "angry face"),
    Emotion.SURPRISED: ("surprised", "shocked", "amazed", "looking surprised", "astonished",
                        "scared", "surprised face"),
    Emotion.LAUGHING: ("laughing", "laughing out loud", "very happy", "excited", "joyful",
                       "overjoyed", "full of joy"),
}  # fmt: skip
WEATHER_WORDS: dict[Weather, tuple[str, ...]] = {
    Weather.CLEAR: ("sunny", "clear sky", "in the sunshine", "good weather"),
    Weather.RAIN: ("in the rain", "raining", "rainy day", "with rain", "it is raining"),
    Weather.SNOWFALL: ("snowing", "with snow falling", "snowfall", "snowflakes"),
    Weather.STORM: ("in a storm", "stormy", "with lightning", "thunderstorm", "stormy sky"),
    Weather.FOG: ("in the fog", "foggy", "misty", "with mist", "in fog"),
}
DAYTIME_WORDS: dict[Daytime, tuple[str, ...]] = {
    Daytime.DAY: ("by day", "during the day", "at noon", "in the morning", "daylight"),
    Daytime.SUNSET: ("at sunset", "at sunrise", "in the evening", "at dusk", "golden hour",
                     "at dawn"),
    Daytime.NIGHT: ("at night", "by night", "late at night", "under the moon", "in the moonlight",
                    "under the stars", "full moon", "midnight"),
}  # fmt: skip
CAMERA_WORDS: dict[Camera, tuple[str, ...]] = {
    Camera.WHOLE: ("full body", "wide shot", "full body shot", "front view"),
    Camera.CLOSE: ("close up", "close up portrait", "portrait", "headshot", "face close up",
                   "selfie", "close view"),
    Camera.BEHIND: ("from behind", "seen from behind", "back view", "from the back",
                    "facing away"),
}  # fmt: skip
STYLE_WORDS: dict[Style, tuple[str, ...]] = {
    Style.TOON: ("cartoon", "cartoon style", "toon style", "flat colors", "anime", "anime style",
                 "vector art", "comic style"),
    Style.WATERCOLOR: ("watercolor", "watercolor painting", "pastel colors", "soft pastel style",
                       "painted in watercolor"),
    Style.SKETCH: ("pencil sketch", "black and white", "sketch", "monochrome", "pencil drawing",
                   "manga style", "film noir"),
}  # fmt: skip
# "{}" is where the colour stands of a prop that has one.
PROP_WORDS: dict[Prop, tuple[str, ...]] = {
    Prop.NONE: (),
    Prop.BALL: ("with a {} ball", "playing with a {} ball", "next to a {} ball", "and a {} ball"),
    Prop.UMBRELLA: ("with a {} umbrella", "holding a {} umbrella", "under a {} umbrella"),
    Prop.BOOK: ("with a {} book", "reading a {} book", "holding a {} book", "reading"),
    Prop.SWORD: ("with a sword", "holding a sword", "with a blade", "sword in hand"),
    Prop.HAT: ("with a {} hat", "wearing a {} hat", "in a {} hat", "with a {} cap"),
    Prop.GUITAR: ("with a {} guitar", "playing a {} guitar", "playing the guitar",
                  "playing music"),
    Prop.BALLOON: ("with a {} balloon", "holding a {} balloon"),
    Prop.CUP: ("with a cup", "drinking coffee", "holding a cup of tea", "with a mug",
               "drinking tea", "with a drink"),
    Prop.WAND: ("with a wand", "with a magic wand", "holding a wand"),
    Prop.SIGN: ("next to a {} sign", "with a {} sign", "near a sign", "standing next to a sign",
                "next to a holographic sign", "road sign", "neon sign", "with a {} board",
                "sign with text"),
}  # fmt: skip
ACCESSORY_WORDS: dict[Accessory, tuple[str, ...]] = {
    Accessory.NONE: (),
    Accessory.GLASSES: ("with glasses", "wearing glasses"),
    Accessory.SCARF: ("with an orange scarf", "wearing a scarf"),
    Accessory.BOW: ("with a bow", "wearing a teal bow", "with a ribbon"),
    Accessory.CROWN: ("with a crown", "wearing a golden crown"),
    Accessory.HEADPHONES: ("with headphones", "wearing headphones"),
    Accessory.CAPE: ("with a cape", "wearing a red cape", "in a cloak"),
    Accessory.FLOWER: ("with a flower", "with a pink flower"),
}
HAIR_WORDS: dict[HairStyle, tuple[str, ...]] = {
    HairStyle.SHORT: ("short",),
    HairStyle.LONG: ("long",),
    HairStyle.SPIKY: ("spiky",),
    HairStyle.BUNS: ("bun",),
    HairStyle.CURLY: ("curly",),
}
OUTFIT_WORDS: dict[Outfit, tuple[str, ...]] = {
    Outfit.COAT: ("coat", "coat", "jacket"),
    Outfit.DRESS: ("dress", "dress", "skirt"),
    Outfit.ARMOUR: ("armour", "armor"),
    Outfit.HOODIE: ("hoodie", "hoodie", "sweater"),
    Outfit.ROBE: ("robe", "robe", "kimono"),
    Outfit.SHIRT: ("shirt", "shirt", "t shirt"),
    Outfit.OVERALLS: ("overalls", "overalls", "dungarees"),
    Outfit.SUIT: ("suit", "suit", "uniform"),
}
TREES = ("with trees", "trees", "with trees in the background", "between trees", "next to a tree",
         "under a tree")  # fmt: skip
NO_TREES = ("without trees", "no trees")
HAZARD = (
    "with a hazard sign", "next to a warning sign", "with a danger sign", "near a hazard sign",
)  # fmt: skip
ANYONE = (
    "the character", "the character", "a character", "this character", "the same character",
    "the hero", "someone", "my character", "the subject", "my hero", "he", "she", "they", "it",
)  # fmt: skip
ROLES = (
    "wizard", "witch", "knight", "princess", "prince", "king", "queen", "pirate", "superhero",
    "detective", "scientist", "astronaut", "ninja", "samurai", "chef", "farmer", "student",
    "teacher", "doctor", "nurse", "warrior", "explorer", "artist", "singer", "musician", "dancer",
    "soldier", "captain", "traveler", "hunter", "magician", "athlete", "player", "guy", "lady",
    "baby", "friend", "animal", "creature", "mascot", "figure", "protagonist",
)  # fmt: skip
"""Words for a character that do not change its look, which the reference decides."""

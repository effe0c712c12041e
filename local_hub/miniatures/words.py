"""Invented names and plain nouns that the generated datasets share."""

CITIES = (
    "Aldbury", "Bramford", "Calder", "Dunmore", "Easton", "Fairhaven", "Glenport", "Harrow", "Kingsford", "Larkhill",
    "Marlow", "Northgate", "Oakdale", "Portsea", "Ridgeway", "Stonebridge", "Thornton", "Westbrook",
)  # fmt: skip

COMPANIES = (
    "Alder Foods", "Beacon Motors", "Cedar Energy", "Delta Freight", "Ember Studios", "Falcon Air", "Granite Bank",
    "Harbor Steel", "Iris Health", "Juniper Media", "Kestrel Rail", "Linden Retail", "Meridian Water", "Nova Telecom",
    "Orchard Homes", "Pioneer Mining", "Quartz Software", "River Textiles",
)  # fmt: skip

FIRST_NAMES = (
    "Anna", "Ben", "Carla", "David", "Elena", "Frank", "Grace", "Henry", "Irene", "Jack", "Kate", "Leo", "Maria",
    "Nina", "Oscar", "Paula", "Robert", "Sara", "Tom", "Victor",
)  # fmt: skip

LAST_NAMES = (
    "Archer", "Baker", "Carter", "Dawson", "Ellis", "Fisher", "Grant", "Hughes", "Jensen", "Keller", "Lawson",
    "Mason", "Norris", "Porter", "Reed", "Shaw", "Turner", "Walsh", "Young", "Zimmer",
)  # fmt: skip

JOBS = (
    "nurse", "teacher", "driver", "farmer", "waiter", "builder", "student", "designer", "clerk", "baker", "plumber",
    "painter", "writer", "mechanic",
)  # fmt: skip

MONTHS = (
    "January", "February", "March", "April", "May", "June", "July", "August", "September", "October", "November",
    "December",
)  # fmt: skip

WEEKDAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")

NUMBER_WORDS = {2: "two", 3: "three", 4: "four", 5: "five", 6: "six", 7: "seven", 8: "eight", 9: "nine"}

"""langchain-openai: ChatOpenAI and OpenAI, whole and streamed; OpenAI draws by default, at a temperature of 0.7."""

import json
import os

from langchain_openai import ChatOpenAI, OpenAI

name, question, prompt = os.environ["MODEL"], os.environ["QUESTION"], os.environ["PROMPT"]
chat = ChatOpenAI(model=name)
greedy = OpenAI(model=name, temperature=0)
drawn = OpenAI(model=name)
answers = [
    chat.invoke(question).text,
    "".join(part.text for part in chat.stream(question)),
    greedy.invoke(prompt),
    "".join(greedy.stream(prompt)),
    greedy.generate([prompt, prompt]).generations[1][0].text,
]
told = {"answers": answers, "drawn": [type(drawn.invoke(prompt)).__name__, bool("".join(drawn.stream(prompt)))]}
print(json.dumps(told))

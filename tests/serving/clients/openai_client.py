"""openai (Python): chats, completions, streams, models, request ids."""

import json
import os

import openai

name, question, prompt = os.environ["MODEL"], os.environ["QUESTION"], os.environ["PROMPT"]
client = openai.OpenAI()
messages = [{"role": "user", "content": question}]
chat = client.chat.completions.create(model=name, messages=messages)
with client.chat.completions.create(model=name, messages=messages, stream=True) as events:
    streamed = "".join(event.choices[0].delta.content or "" for event in events)
completion = client.completions.create(model=name, prompt=prompt)
with client.completions.create(model=name, prompt=prompt, stream=True) as events:
    parts = "".join(event.choices[0].text for event in events)
try:
    client.models.retrieve("nobody/nothing")
except openai.NotFoundError as error:
    missing = error.code
told = {
    "answers": [chat.choices[0].message.content, streamed, completion.choices[0].text, parts],
    "models": [one.id for one in client.models.list()],
    "model": client.models.retrieve(name).id,
    "request": completion._request_id[:4],
    "missing": missing,
}
print(json.dumps(told))

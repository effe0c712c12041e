"""litellm: completion and text_completion, whole, streamed and async."""

import asyncio
import json
import os

import litellm

name, question, prompt = "openai/" + os.environ["MODEL"], os.environ["QUESTION"], os.environ["PROMPT"]
base = os.environ["OPENAI_BASE_URL"]
messages = [{"role": "user", "content": question}]
chat = litellm.completion(model=name, messages=messages, api_base=base)
parts = litellm.completion(model=name, messages=messages, api_base=base, stream=True)
streamed = "".join(part.choices[0].delta.content or "" for part in parts)
later = asyncio.run(litellm.acompletion(model=name, messages=messages, api_base=base))
text = litellm.text_completion(model="text-completion-" + name, prompt=prompt, api_base=base)
parts = litellm.text_completion(model="text-completion-" + name, prompt=prompt, api_base=base, stream=True)
streamed_text = "".join(part.choices[0].text or "" for part in parts)
answers = [chat.choices[0].message.content, streamed, later.choices[0].message.content, text.choices[0].text,
           streamed_text]  # fmt: skip
print(json.dumps({"answers": answers}))

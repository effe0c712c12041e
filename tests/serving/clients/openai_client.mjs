// openai (npm): chats, completions, streams, models, request ids.
import OpenAI from "openai";

const { MODEL: model, QUESTION: question, PROMPT: prompt } = process.env;
const client = new OpenAI();
const messages = [{ role: "user", content: question }];
const chat = await client.chat.completions.create({ model, messages });
let streamed = "";
for await (const event of await client.chat.completions.create({ model, messages, stream: true })) {
  streamed += event.choices[0].delta.content ?? "";
}
const completion = await client.completions.create({ model, prompt });
let parts = "";
for await (const event of await client.completions.create({ model, prompt, stream: true })) {
  parts += event.choices[0].text;
}
const missing = await client.models.retrieve("nobody/nothing").catch((error) => error.code);
const models = [];
for await (const one of client.models.list()) models.push(one.id);
const told = {
  answers: [chat.choices[0].message.content, streamed, completion.choices[0].text, parts],
  models,
  model: (await client.models.retrieve(model)).id,
  request: completion._request_id.slice(0, 4),
  missing,
};
console.log(JSON.stringify(told));

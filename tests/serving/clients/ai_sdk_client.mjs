// @ai-sdk/openai-compatible: generateText and streamText over chats and completions.
import { createOpenAICompatible } from "@ai-sdk/openai-compatible";
import { generateText, streamText } from "ai";

const { MODEL: model, QUESTION: question, PROMPT: prompt, OPENAI_BASE_URL: baseURL, OPENAI_API_KEY: apiKey } = process.env;
const provider = createOpenAICompatible({ name: "here", baseURL, apiKey });
const answers = [];
for (const asked of [
  { model: provider(model), prompt: question },
  { model: provider.completionModel(model), prompt },
]) {
  answers.push((await generateText(asked)).text);
  let streamed = "";
  for await (const part of streamText(asked).textStream) streamed += part;
  answers.push(streamed);
}
console.log(JSON.stringify({ answers }));

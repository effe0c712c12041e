// @ai-sdk/openai-compatible: generateText and streamText.
import { createOpenAICompatible } from "@ai-sdk/openai-compatible";
import { generateText, streamText } from "ai";

const { MODEL: model, QUESTION: prompt, OPENAI_BASE_URL: baseURL, OPENAI_API_KEY: apiKey } = process.env;
const asked = { model: createOpenAICompatible({ name: "here", baseURL, apiKey })(model), prompt };
let streamed = "";
for await (const part of streamText(asked).textStream) streamed += part;
console.log(JSON.stringify({ answers: [(await generateText(asked)).text, streamed] }));

// Shows the chats and takes questions.
import { formatBytes, type TensorMemory } from "tierheap";
import { type Chat, type Chats, cacheIdOf, promptsOf } from "./chats.js";
import { element, make, say, sayProblem, setText } from "./dom.js";
import { kvIdsOf, textOf, wordsOf } from "./model.js";

/** The model, once it is there. */
type Model = typeof import("./chat-model.js");
type Decoder = Awaited<ReturnType<Model["openDecoder"]>>;

const EMPTY =
  "No messages yet. The first question loads ONNX Runtime, a few megabytes; then watch the KV cache grow on the map.";

export class ChatView {
  readonly #log = element("log");
  readonly #tabs = element("chat-tabs");
  readonly #form = element<HTMLFormElement>("ask");
  readonly #question = element<HTMLInputElement>("question");
  #memory: TensorMemory | null = null;
  #chats: Chats | null = null;
  #chat: Chat | null = null;
  #model: Model | null = null;
  #decoder: Promise<Decoder> | null = null;
  #busy: Promise<void> = Promise.resolve();
  #isBusy = false;

  constructor() {
    this.#form.addEventListener("submit", (event) => {
      event.preventDefault();
      const text = this.#question.value.trim();
      if (text !== "" && !this.#isBusy) this.#begin(() => this.#ask(text));
    });
    element("verify").addEventListener("click", () => this.#begin(() => this.#verify()));
  }

  get isBusy(): boolean {
    return this.#isBusy;
  }

  /** Chats in which something was said. */
  get count(): number {
    return this.#chats?.list.filter(({ turns }) => turns.length > 0).length ?? 0;
  }

  /** Shows what is in another memory. */
  open(memory: TensorMemory, chats: Chats): void {
    this.#memory = memory;
    this.#chats = chats;
    const number = this.#chat?.number;
    this.#chat = chats.list.find((chat) => chat.number === number) ?? chats.list[0] ?? null;
    this.#chat ??= chats.create();
    this.#show();
  }

  /** Before the memory closes. */
  async close(): Promise<void> {
    await this.#busy;
    const decoder = this.#decoder;
    this.#decoder = null;
    await (await decoder)?.close();
  }

  /** Begins an answer and writes, and waits for neither: the page is about to be dropped. */
  abandon(): void {
    const dropped = () => {
      // The page is gone before anybody could tell.
    };
    if (this.#decoder !== null) this.#ask("A question whose answer is lost.").catch(dropped);
    this.#chats?.writeUntilTheEnd().catch(dropped);
  }

  async forget(): Promise<void> {
    await this.#busy;
    await this.#chats?.forget((await this.#decoder) ?? null);
    this.#decoder = null;
    if (this.#memory !== null && this.#chats !== null) this.open(this.#memory, this.#chats);
  }

  /** Where the KV of the chat on show is. Called now and then. */
  showPlaces(): void {
    if (this.#isBusy || this.#memory === null || this.#chat === null) return;
    const tensors = kvIdsOf(cacheIdOf(this.#chat)).map((id) => this.#memory?.tensor(id) ?? null);
    const held = tensors.filter((tensor) => tensor !== null);
    const bytes = held.reduce((sum, { byteLength }) => sum + byteLength, 0);
    const resident = held.filter(({ isResident }) => isResident).length;
    const count = this.#chat.tokens.length;
    let text = "A new chat: no KV yet.";
    if (held.length > 0) {
      text = `${count} tokens, ${formatBytes(bytes)} of KV in ${held.length} tensors: ${resident} in RAM, ${held.length - resident} in colder tiers.`;
    } else if (count > 0) {
      text = `${count} tokens. The KV is in the store and comes back with the next question.`;
    }
    setText(element("chat-note"), text);
  }

  // --- What the visitor does ---------------------------------------------------------------------------

  #begin(work: () => Promise<void>): void {
    if (this.#isBusy) return;
    this.#isBusy = true;
    this.#form.setAttribute("aria-busy", "true");
    this.#busy = work()
      .catch(sayProblem)
      .finally(() => {
        this.#isBusy = false;
        this.#form.removeAttribute("aria-busy");
        this.showPlaces();
      });
  }

  async #open(): Promise<{ model: Model; decoder: Decoder }> {
    if (this.#model === null) say("Loading ONNX Runtime and building the model.");
    this.#model ??= await import("./chat-model.js");
    this.#decoder ??= this.#model.openDecoder(this.#memory as TensorMemory);
    try {
      return { model: this.#model, decoder: await this.#decoder };
    } catch (error) {
      this.#decoder = null;
      throw error;
    }
  }

  async #ask(text: string): Promise<void> {
    const chat = this.#chat as Chat;
    const { model, decoder } = await this.#open();
    this.#question.value = "";
    say(`Chat ${chat.number}: answering.`);
    if (chat.turns.length === 0) this.#log.replaceChildren();
    this.#add("You", text);
    const { words, small } = this.#add("Model", "");
    const chats = this.#chats as Chats;
    const onToken = (answer: readonly number[]) => {
      setText(words, wordsOf(answer));
      this.#log.scrollTop = this.#log.scrollHeight;
    };
    const answer = await chats.ask(chat, text, decoder, model.greedyToken, onToken);
    const speed = Math.round(answer.tokensPerSecond);
    const kept = answer.isKept ? "saved" : "not saved";
    setText(
      small,
      `${answer.tokens.length} tokens, ${speed} a second; KV ${answer.source}; ${kept}`,
    );
    this.#log.scrollTop = this.#log.scrollHeight;
    this.#log.dataset["tokens"] = chat.tokens.join(" ");
    this.#showTabs();
    const outcome = answer.isKept ? "and the chat is saved" : "but it could not be saved";
    const tone = answer.isKept ? "plain" : "problem";
    say(`Chat ${chat.number}: answered in ${answer.tokens.length} tokens, ${outcome}.`, tone);
  }

  /** Takes all turns again on the runtime alone. */
  async #verify(): Promise<void> {
    const chat = this.#chat as Chat;
    if (chat.turns.length === 0) return say("Ask something first.");
    const { model } = await this.#open();
    const counts = chat.turns.map(([, answerCount]) => answerCount);
    const expected = await model.answerBare(promptsOf(chat), counts);
    const isEqual =
      expected.length === chat.tokens.length &&
      expected.every((token, index) => token === chat.tokens[index]);
    if (isEqual)
      say(`Chat ${chat.number}: all ${expected.length} tokens are equal to the bare runtime's.`);
    else say(`Chat ${chat.number}: the bare runtime says something else.`, "problem");
  }

  // --- What is on show ---------------------------------------------------------------------------------

  #show(): void {
    this.#showTabs();
    const chat = this.#chat as Chat;
    this.#log.replaceChildren();
    this.#log.dataset["tokens"] = chat.tokens.join(" ");
    let at = 0;
    for (const [promptCount, answerCount] of chat.turns) {
      this.#add("You", textOf(chat.tokens.slice(at, at + promptCount)));
      at += promptCount;
      const answer = this.#add("Model", wordsOf(chat.tokens.slice(at, at + answerCount)));
      setText(answer.small, `${answerCount} tokens`);
      at += answerCount;
    }
    if (chat.turns.length === 0) this.#log.append(make("p", "empty", EMPTY));
    this.#log.scrollTop = this.#log.scrollHeight;
    this.showPlaces();
  }

  #showTabs(): void {
    const chats = this.#chats as Chats;
    const tab = (label: string, isShown: boolean, choose: () => void) => {
      const button = make("button", "small", label);
      button.type = "button";
      button.setAttribute("aria-pressed", `${isShown}`);
      button.addEventListener("click", () => {
        if (this.#isBusy) return;
        choose();
        this.#show();
        this.#question.focus();
      });
      return button;
    };
    const shown = chats.list.slice(-6);
    const tabs = shown.map((chat) =>
      tab(`Chat ${chat.number}`, chat === this.#chat, () => {
        this.#chat = chat;
      }),
    );
    const more = tab("New", false, () => {
      this.#chat = chats.list.find(({ turns }) => turns.length === 0) ?? chats.create();
    });
    more.removeAttribute("aria-pressed");
    this.#tabs.replaceChildren(...tabs, more);
  }

  #add(who: string, text: string): { words: HTMLElement; small: HTMLElement } {
    const words = make("span", "", text);
    const small = make("small");
    const body = make("div", "", words, ...(who === "You" ? [] : [small]));
    this.#log.append(make("div", "message", make("span", "who", who), body));
    this.#log.scrollTop = this.#log.scrollHeight;
    return { words, small };
  }
}

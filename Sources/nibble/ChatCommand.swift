import ArgumentParser
import Engine
import Synchronization
import TextCodec

#if canImport(Glibc)
  import Glibc
#elseif canImport(Darwin)
  import Darwin
#endif

struct ChatCommand: AsyncParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "chat",
    abstract: "Talk with a model in the terminal.",
    discussion: """
      /reset begins a new conversation, /stats tells how the last answer came about, /quit ends. Ctrl-C stops an answer, a second \
      one exits.
      """)

  @Option(help: "A system message in front of the conversation.")
  var system: String?

  @OptionGroup var dryRunOption: DryRunOption
  @OptionGroup(title: "Sampling") var sampling: SamplingOptions
  @OptionGroup(title: "Model") var modelOptions: ModelOptions
  @OptionGroup(title: "KV cache") var cacheOptions: CacheOptions
  @OptionGroup(title: "Engine") var engineOptions: EngineOptions

  func run() async throws {
    let plan = try RunPlan(model: modelOptions, cache: cacheOptions, engine: engineOptions)
    guard let template = try plan.chatTemplate() else {
      throw CommandFailure(
        .data,
        "\(plan.directory) has no chat template; expected chat_template in tokenizer_config.json or chat_template.jinja"
      )
    }
    // Bad flags are told before the first question.
    let parameters = try sampling.parameters(defaults: plan.generation, room: plan.limits.contextLength)
    if dryRunOption.dryRun {
      return RunPlanReport(plan, adding: sampling.decisions(parameters, plan.generation)).write(asJSON: false)
    }
    let session = try TextSession(plan, model: modelOptions, cache: cacheOptions, engine: engineOptions)
    var conversation = Conversation(template: template, tokenizer: session.tokenizer, system: system)
    var lastReport = ["no answer yet"]
    Interruption.install()
    if Console.inputIsTerminal { Console.error("/reset, /stats, /quit; Ctrl-C stops an answer") }

    while true {
      if Console.inputIsTerminal { Console.errorText("> ") }
      guard let line = readLine() else { break }
      switch line {
      case "": continue
      case "/quit", "/exit": return await session.engine.shutDown()
      case "/reset":
        conversation = Conversation(template: template, tokenizer: session.tokenizer, system: system)
        Console.error("a new conversation")
      case "/stats": lastReport.forEach(Console.error)
      case _ where line.hasPrefix("/"): Console.error("unknown command '\(line)'; there are /reset, /stats and /quit")
      default:
        do {
          let prompt = try conversation.ask(line)
          let parameters = try sampling.parameters(
            defaults: session.generation, room: session.engine.contextLength - prompt.count)
          let (answer, ids, completion) = try await Self.answer(prompt, parameters: parameters, engine: session.engine)
          conversation.answer(answer, ids: ids)
          Console.write("\n")
          if let completion { lastReport = session.report(completion) }
        } catch {
          conversation.withdraw()
          Console.error("error: \(error)")
        }
      }
    }
    await session.engine.shutDown()
  }

  /// Streams an answer to stdout. Ctrl-C ends it early; what has come until then counts.
  private static func answer(
    _ prompt: [Int32], parameters: SamplingParameters, engine: Engine
  ) async throws -> (text: String, ids: [Int32], completion: Completion?) {
    let task = Task {
      var (text, ids, last) = ("", [Int32](), Completion?.none)
      for try await event in engine.generate(Request(tokens: prompt, sampling: parameters)) {
        switch event {
        case .token(let token):
          ids.append(token.id)
          text += token.text
          Console.write(token.text)
        case .finished(let completion):
          text += completion.text
          Console.write(completion.text)
          last = completion
        }
      }
      return (text, ids, last)
    }
    let watcher = Task {
      while !Interruption.isRequested {
        try await Task.sleep(for: .milliseconds(20))
      }
      task.cancel()
    }
    Interruption.begin()
    defer {
      Interruption.end()
      watcher.cancel()
    }
    return try await task.value
  }
}

/// A conversation as messages and as the tokens that the cache has of it. A turn's prompt begins with the very tokens of the turns
/// before, so only the new ones are computed.
struct Conversation {
  private let template: ChatTemplate
  private let tokenizer: Tokenizer
  private var messages: [ChatMessage]
  /// The tokens so far and the text they stand for.
  private var tokens: [Int32] = []
  private var text = ""

  init(template: ChatTemplate, tokenizer: Tokenizer, system: String?) {
    self.template = template
    self.tokenizer = tokenizer
    messages = system.map { [ChatMessage(role: "system", content: $0)] } ?? []
  }

  /// Adds the user's message and returns the prompt for the answer.
  mutating func ask(_ message: String) throws -> [Int32] {
    messages.append(ChatMessage(role: "user", content: message))
    let rendered = try template.render(messages: messages, addGenerationPrompt: true)
    if rendered.utf8.starts(with: text.utf8) {
      let rest = String(rendered.utf8.dropFirst(text.utf8.count)) ?? ""
      tokens += tokenizer.encode(rest, addSpecialTokens: false, allowSpecial: true)
    } else {
      // The template changes earlier turns (it drops their reasoning, say): start over.
      tokens = tokenizer.encode(rendered, addSpecialTokens: false, allowSpecial: true)
    }
    text = rendered
    return tokens
  }

  /// Adds the model's answer; the token that ended it belongs to the template's next text.
  mutating func answer(_ answer: String, ids: [Int32]) {
    messages.append(ChatMessage(role: "assistant", content: answer))
    tokens += ids.last.map { tokenizer.isSpecial($0) } ?? false ? ids.dropLast() : ids
    text += answer
  }

  /// Takes back a message that got no answer.
  mutating func withdraw() {
    if messages.last?.role == "user" { messages.removeLast() }
    (tokens, text) = ([], "")
  }
}

/// Ctrl-C: during an answer the first one asks it to stop, any other ends the program.
enum Interruption {
  private static let isAnswering = Atomic<Bool>(false)
  private static let requested = Atomic<Bool>(false)

  static var isRequested: Bool { requested.load(ordering: .relaxed) }

  static func begin() {
    requested.store(false, ordering: .relaxed)
    isAnswering.store(true, ordering: .relaxed)
  }

  static func end() { isAnswering.store(false, ordering: .relaxed) }

  static func install() {
    signal(SIGINT) { _ in
      let first =
        Interruption.isAnswering.load(ordering: .relaxed)
        && !Interruption.requested.exchange(true, ordering: .relaxed)
      if !first { _exit(130) }
    }
  }
}

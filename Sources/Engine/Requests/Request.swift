/// What a client asks for: one prompt, one or more completions of it.
public struct Request: Sendable {
  /// What the model goes on from.
  public enum Prompt: Hashable, Sendable {
    /// Encoded by the engine's tokenizer, special tokens by name included; no chat template is applied.
    case text(String)
    case tokens([Int32])
  }

  public var prompt: Prompt
  public var sampling: SamplingParameters
  /// Completions of the prompt, 1 to 128, which share its pages (OpenAI's `n`).
  public var choiceCount: Int
  /// Requests of higher priority start first, in the place of running ones of lower priority if need be, and are preempted last.
  public var priority: Int
  /// Ends the request this long after its submission, finished or not.
  public var deadline: Duration?
  /// Adds a digest of the logits to each token, so that tests can compare them bit for bit.
  package var digestsLogits = false

  public init(
    prompt: Prompt, sampling: SamplingParameters = .greedy, choiceCount: Int = 1, priority: Int = 0,
    deadline: Duration? = nil
  ) {
    self.prompt = prompt
    self.sampling = sampling
    self.choiceCount = choiceCount
    self.priority = priority
    self.deadline = deadline
  }

  public init(_ text: String, sampling: SamplingParameters = .greedy) {
    self.init(prompt: .text(text), sampling: sampling)
  }

  public init(tokens: [Int32], sampling: SamplingParameters = .greedy) {
    self.init(prompt: .tokens(tokens), sampling: sampling)
  }
}

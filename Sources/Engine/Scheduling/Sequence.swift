import PagedCache

/// A request inside the engine. Only the engine's thread touches it.
final class RequestState {
  let id: UInt64
  let request: Request
  let prompt: [Int32]
  /// Tokens that each choice may generate.
  let maxTokens: Int
  let stops: StopStrings?
  let stream: EventStream
  let submitted: Moment
  var expiry: Moment? { request.deadline.map { submitted + $0 } }
  var started: Moment?
  /// Choices that have not finished.
  var choices: [GenerationSequence] = []
  /// All choices exist.
  var hasForked = false
  /// Waits for its first step.
  var isQueued = true
  /// The request's, or a drawn one.
  let seed: UInt64

  init(
    id: UInt64, request: Request, prompt: [Int32], maxTokens: Int, stops: StopStrings?,
    stream: EventStream
  ) {
    self.id = id
    self.request = request
    self.prompt = prompt
    self.maxTokens = maxTokens
    self.stops = stops
    self.stream = stream
    submitted = Moment.now
    seed = request.sampling.seed ?? .random(in: 0...UInt64.max)
  }
}

/// One completion on its way: tokens, pages, sampler.
final class GenerationSequence {
  let state: RequestState
  let choice: Int
  /// Prompt and answer.
  var tokens: [Int32]
  /// Pages of `tokens[0 ..< table.length]`.
  var table = PageTable()
  /// Pages in the swap space, while preempted.
  var swapped = SwappedTable()
  var sampler: Sampler
  var text: TextOutput
  /// Guesses of the tokens after `tokens`, to be checked in the next step.
  var drafts: [Int32] = []
  /// Drafts wanted before that.
  var draftLimit = 0
  /// Of the last stored token, where drafts are made.
  var hidden: HiddenState?
  var cachedTokens = 0
  var preemptions = 0
  var hasEnded = false
  /// Times a later request was started before this one.
  var passedOver = 0
  var firstToken: Moment?
  var lastToken: Moment?

  init(state: RequestState, choice: Int, tokens: [Int32], sampler: Sampler, text: TextOutput) {
    self.state = state
    self.choice = choice
    self.tokens = tokens
    self.sampler = sampler
    self.text = text
  }

  /// Tokens without keys and values yet: 1 while decoding.
  var pendingCount: Int { tokens.count - table.length }
  var generatedCount: Int { tokens.count - state.prompt.count }

  /// The order of service: priority, then arrival, then choice.
  static func isBefore(_ a: GenerationSequence, _ b: GenerationSequence) -> Bool {
    if a.state.request.priority != b.state.request.priority {
      return a.state.request.priority > b.state.request.priority
    }
    if a.state.id != b.state.id { return a.state.id < b.state.id }
    return a.choice < b.choice
  }
}

extension [GenerationSequence] {
  /// Inserts in the order of service.
  mutating func insertInOrder(_ sequence: GenerationSequence) {
    var (low, high) = (0, count)
    while low < high {
      let middle = (low + high) / 2
      if GenerationSequence.isBefore(self[middle], sequence) { low = middle + 1 } else { high = middle }
    }
    insert(sequence, at: low)
  }
}

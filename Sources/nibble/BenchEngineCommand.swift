import ArgumentParser
import Engine
import JSON

/// Drives many requests through the engine in this process.
struct BenchEngineCommand: AsyncParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "engine",
    abstract: "Run a mix of requests through the engine and time it.",
    discussion: """
      Synthetic prompts are random token ids; with --prompts they are the lines of a file. Answers go on to their full \
      length. Requests arrive all at once, or at random (Poisson) times with --arrival-rate. Times of tokens are taken \
      where the engine makes them.
      """)

  @Option(help: "Number of requests.")
  var requests = 64

  @Option(help: "Prompt tokens of a synthetic request.")
  var inputLen = 256

  @Option(help: "Tokens of an answer.")
  var outputLen = 64

  @Option(help: "Lengths vary between this share of --input-len and --output-len, and all of it.")
  var rangeRatio = 1.0

  @Option(help: "Tokens at the start of every synthetic prompt that all have in common, beside --input-len.")
  var sharedPrefix = 0

  @Option(help: "Requests a second (default: all at once).")
  var arrivalRate: Double?

  @Option(help: "A file with a prompt a line, used in turn instead of synthetic ones.")
  var prompts: String?

  @Option(help: "Seed of prompts, lengths and arrivals.")
  var seed: UInt64 = 1

  @Flag(help: "Print one JSON object.")
  var json = false

  @OptionGroup var dryRunOption: DryRunOption
  @OptionGroup(title: "Model") var modelOptions: ModelOptions
  @OptionGroup(title: "KV cache") var cacheOptions: CacheOptions
  @OptionGroup(title: "Engine") var engineOptions: EngineOptions

  func validate() throws {
    guard requests > 0, inputLen > 0, outputLen > 0, sharedPrefix >= 0 else {
      throw ValidationError("expected positive --requests, --input-len and --output-len, and --shared-prefix from 0 on")
    }
    guard [requests, inputLen, outputLen, sharedPrefix].allSatisfy({ $0 <= 1 << 24 }) else {
      throw ValidationError("expected --requests, --input-len, --output-len and --shared-prefix up to 16777216")
    }
    guard rangeRatio > 0, rangeRatio <= 1 else {
      throw ValidationError("expected --range-ratio above 0, up to 1, found \(rangeRatio)")
    }
    if let arrivalRate, !(arrivalRate >= 0.001 && arrivalRate.isFinite) {
      throw ValidationError("expected --arrival-rate from 0.001 on, found \(arrivalRate)")
    }
  }

  func run() async throws {
    let plan = try RunPlan(model: modelOptions, cache: cacheOptions, engine: engineOptions)
    if dryRunOption.dryRun { return RunPlanReport(plan).write(asJSON: json) }
    let configuration = try engineOptions.configuration(model: modelOptions, cache: cacheOptions)
    let engine = try Engine(
      LoadedModel(
        try modelOptions.load(cache: cacheOptions, speculation: configuration.speculation),
        configuration: configuration, tokenizer: plan.tokenizer),
      configuration: configuration)
    let arrivals = try arrivals(engine: engine)
    let clock = ContinuousClock()
    let start = clock.now
    let records = try await withThrowingTaskGroup(of: RequestRecord.self) { group in
      for arrival in arrivals {
        group.addTask {
          if arrival.delay > .zero { try await clock.sleep(until: start + arrival.delay) }
          return try await RequestRecord(running: arrival.request, on: engine)
        }
      }
      return try await group.reduce(into: []) { $0.append($1) }
    }
    let report = EngineBenchReport(records: records, wall: clock.now - start, statistics: engine.statistics())
    Console.write(json ? report.json.serialized(pretty: true) + "\n" : report.text)
    await engine.shutDown()
  }

  /// The requests and when they come.
  private func arrivals(engine: Engine) throws -> [(request: Request, delay: Duration)] {
    var random = SplitMix(state: seed)
    let lines = try prompts.map { try Console.readFile($0).split(separator: "\n").map(String.init) }
    if let lines, lines.isEmpty {
      throw CommandFailure(.data, "'\(prompts ?? "")' has no prompts; expected one a line")
    }
    func ids(_ count: Int) -> [Int32] {
      (0..<count).map { _ in Int32.random(in: 0..<Int32(engine.vocabularySize), using: &random) }
    }
    func length(_ full: Int) -> Int { Int.random(in: max(1, Int(Double(full) * rangeRatio))...full, using: &random) }
    let prefix = ids(sharedPrefix)
    var delay = Duration.zero
    return try (0..<requests).map { index in
      let prompt: Request.Prompt =
        lines.map { .text($0[index % $0.count]) } ?? .tokens(prefix + ids(length(inputLen)))
      let sampling = try SamplingParameters(ignoreEOS: true, maxTokens: length(outputLen))
      defer {
        // Exponential gaps between arrivals.
        if let arrivalRate { delay += .seconds(-logarithm(Double.random(in: 0..<1, using: &random)) / arrivalRate) }
      }
      return (Request(prompt: prompt, sampling: sampling), delay)
    }
  }
}

/// What one request of a benchmark saw.
struct RequestRecord: Sendable {
  var usage = Usage()
  var timings = Timings()
  /// From submission to the end, seconds.
  var latency = 0.0
  /// Between tokens, seconds.
  var gaps: [Double] = []

  init(running request: Request, on engine: Engine) async throws {
    let start = ContinuousClock.now
    var last: ContinuousClock.Instant?
    for try await event in engine.generate(request) {
      switch event {
      case .token(let token):
        if let last { gaps.append((token.time - last).inSeconds) }
        last = token.time
      case .finished(let completion):
        usage = completion.usage
        timings = completion.timings
      }
    }
    latency = ((last ?? ContinuousClock.now) - start).inSeconds
  }
}

/// SplitMix64 (Steele et al., OOPSLA 2014): the same mix of requests for the same seed.
struct SplitMix: RandomNumberGenerator {
  var state: UInt64

  mutating func next() -> UInt64 {
    state &+= 0x9E37_79B9_7F4A_7C15
    var word = state
    word = (word ^ (word >> 30)) &* 0xBF58_476D_1CE4_E5B9
    word = (word ^ (word >> 27)) &* 0x94D0_49BB_1331_11EB
    return word ^ (word >> 31)
  }
}

import AllocationCounter
import Engine
import KVQuantization
import ModelFamilies
import Operators
import PagedCache
import Synchronization
import Testing

// Not in debug builds, whose generic code allocates for itself.
#if DEBUG
  private let countsAllocations = false
#else
  private let countsAllocations = nb_thread_allocations() != nil
#endif

/// In a steady state the engine's thread allocates nothing, neither in a step nor in the model: counted over malloc.
@Suite(.serialized, .enabled(if: countsAllocations, "allocations can't be counted here"))
struct AllocationTests {
  /// Passes steps on, and notes what its thread has allocated when they begin and end.
  private final class CountingModel: LanguageModel {
    private let model: any LanguageModel
    private let log: Log

    init(_ model: any LanguageModel, log: Log) {
      self.model = model
      self.log = log
    }

    var vocabularySize: Int { model.vocabularySize }
    var layerCount: Int { model.layerCount }
    var contextLimit: Int { model.contextLimit }

    func cacheLayout(_ recipes: CacheRecipes, pageSize: Int) throws(PagedCacheError) -> CacheLayout {
      try model.cacheLayout(recipes, pageSize: pageSize)
    }

    func forward(_ batch: StepBatch, pool: PagePool, logits: UnsafeMutableBufferPointer<Float>) throws {
      let begin = nb_thread_allocations().pointee
      try model.forward(batch, pool: pool, logits: logits)
      log.append(
        Step(
          sequences: batch.sequenceCount, tokens: batch.tokenCount, begin: begin, end: nb_thread_allocations().pointee))
    }
  }

  private struct Step {
    var sequences: Int
    var tokens: Int
    var begin: UInt64
    var end: UInt64
  }

  private final class Log: Sendable {
    private let steps = Mutex<[Step]>([])

    init() { steps.withLock { $0.reserveCapacity(4096) } }

    func append(_ step: Step) { steps.withLock { $0.append(step) } }

    var count: Int { steps.withLock { $0.count } }

    /// Allocations in the model and between its steps, over those steps from `start` on in which `sequences` decode.
    func decoding(sequences: Int, from start: Int) -> (steps: Int, model: UInt64, engine: UInt64) {
      steps.withLock { steps in
        func decodes(_ step: Step) -> Bool { step.sequences == sequences && step.tokens == sequences }
        var result = (steps: 0, model: UInt64(0), engine: UInt64(0))
        for (step, next) in zip(steps[start...], steps[(start + 1)...]) where decodes(step) && decodes(next) {
          result.steps += 1
          result.model += step.end - step.begin
          result.engine += next.begin - step.end
        }
        return result
      }
    }
  }

  private static let answer = 100

  /// Each kind of request that has its own way through the sampler.
  private func requests(_ count: Int) throws -> [Request] {
    let ways = [
      try SamplingParameters(ignoreEOS: true, maxTokens: Self.answer),
      try SamplingParameters(
        temperature: 0.9, topK: 200, topP: 0.95, seed: 1, stop: ["never seen"], ignoreEOS: true, maxTokens: Self.answer),
      try SamplingParameters(temperature: 1, minP: 0.01, seed: 2, ignoreEOS: true, maxTokens: Self.answer),
      try SamplingParameters(temperature: 1, topP: 0.9, seed: 3, ignoreEOS: true, maxTokens: Self.answer),
    ]
    return (0..<count).map {
      Request(tokens: prompt($0, length: 20, vocabulary: 4096), sampling: ways[$0 % ways.count])
    }
  }

  @Test(arguments: TestModels.shipped, [1, 8, 32])
  func decodingAllocatesNothing(model: String, sequences: Int) async throws {
    let log = Log()
    let configuration = try EngineConfiguration(poolSize: .tokens(8192), maxRunningRequests: 32, threadCount: 2)
    var loaded = try LoadedModel(
      ModelRuntime(directory: TestModels.directory(model), threadCount: 2), configuration: configuration)
    loaded.model = CountingModel(loaded.model, log: log)
    let engine = try Engine(loaded, configuration: configuration)
    // The first time, arrays grow to what the requests need.
    _ = try await longTexts(of: try requests(sequences), on: engine)
    // A new sequence's text has its own buffers, which grow with its first tokens.
    let start = log.count + 10
    let longTexts = try await longTexts(of: try requests(sequences), on: engine)
    await engine.shutDown()
    let counted = log.decoding(sequences: sequences, from: start)
    #expect(counted.steps > 50)
    #expect(counted.model == 0, "\(counted)")
    // On a busy machine, events pile up and their array grows once more.
    #expect(counted.engine <= longTexts + 3, "\(counted), \(longTexts) long texts")
    #expect(longTexts < counted.steps * sequences / 20)
  }

  /// Runs requests at the same time.
  /// - Returns: tokens whose text doesn't fit into a String itself (15 bytes of UTF-8) and so needs memory of its own.
  private func longTexts(of requests: [Request], on engine: Engine) async throws -> Int {
    var count = 0
    for stream in requests.map(engine.generate) {
      for try await event in stream {
        if case .token(let token) = event, token.text.utf8.count > 15 { count += 1 }
      }
    }
    return count
  }
}

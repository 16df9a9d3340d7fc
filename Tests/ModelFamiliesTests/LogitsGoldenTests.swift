import CPUBackend
import Checkpoints
import KVQuantization
import ModelFamilies
import Operators
import Testing

/// Logits against transformers in float32, with the same quantise-dequantise of what the cache holds.
@Suite struct LogitsGoldenTests {
  static let dense = ["llama-rope-llama3", "llama-rope-linear", "qwen2", "qwen3", "qwen3-rope-yarn"]
  static let others = [
    "qwen3-moe", "deepseek-v2-lite", "deepseek-v2", "deepseek-v3", "deepseek-v3-mtp2", "deepseek-v3-fp8",
    "deepseek-v3-fp8-ragged",
  ]
  static let shipped = ["tiny-qwen3", "tiny-deepseek-v3"]

  /// Debug builds are slow: of the shipped models they see the first tokens and a third of the runs.
  static var isDebug: Bool {
    var result = false
    assert({ result = true }() == ())
    return result
  }

  @Test(arguments: dense + others)
  func smallCheckpoint(name: String) throws {
    try check(name, directory: "\(GoldenLogits.resources)/\(name)", tokenCount: .max, everyRun: true)
  }

  @Test(arguments: shipped)
  func shippedModel(name: String) throws {
    try check(
      name, directory: "\(GoldenLogits.models)/\(name)", tokenCount: Self.isDebug ? 48 : .max, everyRun: !Self.isDebug)
  }

  private func check(
    _ name: String, directory: String, tokenCount: Int, everyRun: Bool, isFast: Bool = false,
    precision: AttentionPrecision = .full
  ) throws {
    let golden = try GoldenLogits(name).prefix(tokenCount)
    let model = try loadModel(directory, isFast: isFast, precision: precision)
    for (index, run) in golden.runs.enumerated() where everyRun || index % 3 == 1 {
      let forcing = try TeacherForcing(
        model, recipes: CacheRecipes(key: run.recipes.first, value: run.recipes.second, rope: run.recipes.second),
        scales: run.scales.map { Array($0.prefix(model.layerCount)) }, tokenCount: golden.tokens.count)
      let logits = try forcing.logits(golden.tokens, chunk: golden.tokens.count)
      let errors = golden.errors(logits, vocabulary: model.vocabularySize, expected: run.logits)
      let roundsQueries = isFast && run.recipes.first.codeBits == 4
      let flips = roundsQueries && precision == .fast && Self.shipped.contains(name)
      let median = run.isExact ? 1e-3 : flips ? 5e-2 : roundsQueries ? 5e-3 : 2e-3
      let worst = run.isExact ? 1e-3 : flips ? 2e-1 : 3e-2
      #expect(errors[errors.count / 2] <= median, "median of \(name) \(run)")
      #expect(errors[errors.count - 1] <= worst, "worst of \(name) \(run)")
    }
  }

  /// The fast backend rounds queries and probabilities where codes have four bits. What that moves in a layer's result flips codes
  /// of the next layer's keys and values, each by a whole step: the logits' error goes as the square root of attention's. The random
  /// checkpoints' few tokens see no flips even from 16 bits; the shipped models' hundreds of tokens do.
  @Test(arguments: dense + others + shipped, AttentionPrecision.allCases)
  func fastBackend(name: String, precision: AttentionPrecision) throws {
    let isShipped = Self.shipped.contains(name)
    try check(
      name, directory: "\(isShipped ? GoldenLogits.models : GoldenLogits.resources)/\(name)", tokenCount: .max,
      everyRun: !(isShipped && Self.isDebug), isFast: true, precision: precision)
  }

  /// Another recipe, or a forgotten scale, is far outside the tolerances above.
  @Test(arguments: dense + others + shipped)
  func runsDiffer(name: String) throws {
    let golden = try GoldenLogits(name)
    for (index, run) in golden.runs.enumerated() {
      for other in golden.runs[..<index] {
        let pairs = zip(run.logits, other.logits).map { (Double($0), Double($1)) }
        let distance = pairs.reduce(0) { $0 + ($1.0 - $1.1) * ($1.0 - $1.1) }.squareRoot()
        let norm = pairs.reduce(0) { $0 + $1.0 * $1.0 }.squareRoot()
        let nearest = [run, other].allSatisfy { ["f32+f32", "bf16+bf16"].contains($0.description) } ? 8e-4 : 8e-3
        #expect(distance / norm > nearest, "\(name): \(run) and \(other)")
      }
    }
  }
}

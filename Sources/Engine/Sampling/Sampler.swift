#if canImport(Glibc)
  import Glibc
#elseif canImport(Darwin)
  import Darwin
#endif

/// Memory that samplers of all sequences use in turn.
struct SamplerScratch {
  var candidates: [Candidate] = []
  var heap: [Float] = []
  var blocks: [Double] = []
  /// Logits that penalties changed, to be put back.
  var changed: [Candidate] = []
}

/// A token and, if asked for, what the model thought of it and of its rivals, before penalties and temperature.
public struct TokenLogprob: Hashable, Sendable {
  public let token: Int32
  /// Natural logarithm of the probability.
  public let logprob: Double
}

/// Chooses one sequence's tokens. The choice is a function of the logits, the parameters, the tokens so far, the seed and the
/// position.
///
/// Order, as in vLLM: penalties (repetition, frequency, presence), temperature, min-p, top-k, top-p, draw.
struct Sampler {
  let parameters: SamplingParameters
  let seed: UInt64
  let choice: Int
  /// Ids that can't be chosen before `parameters.minTokens`.
  private let endTokens: [Int32]
  /// How often the answer has a token; prompt tokens are there with 0. Empty without penalties.
  private var occurrences: [Int32: Int32] = [:]
  private var generatedCount = 0

  init(parameters: SamplingParameters, seed: UInt64, choice: Int, prompt: [Int32], endTokens: [Int32]) {
    self.parameters = parameters
    self.seed = seed
    self.choice = choice
    self.endTokens = parameters.minTokens > 0 ? endTokens + parameters.stopTokenIDs : []
    if parameters.hasPenalties { for token in prompt { occurrences[token] = 0 } }
  }

  /// Chooses the token for `position`. The row is as before afterwards.
  /// - Returns: nil if the logits hold NaN or nothing finite.
  mutating func sample(
    _ values: UnsafeMutableBufferPointer<Float>, position: Int, scratch: inout SamplerScratch
  ) -> Int32? {
    let row = LogitsRow(values: values)
    applyPenalties(row, scratch: &scratch)
    let token = choose(row, position: position, scratch: &scratch)
    for change in scratch.changed.reversed() { values[Int(change.token)] = change.logit }
    scratch.changed.removeAll(keepingCapacity: true)
    if let token { record(token) }
    return token
  }

  /// Counts a token as part of the answer.
  mutating func record(_ token: Int32) {
    if parameters.hasPenalties { occurrences[token, default: 0] += 1 }
    generatedCount += 1
  }

  private func applyPenalties(_ row: LogitsRow, scratch: inout SamplerScratch) {
    func change(_ token: Int32, to logit: Float) {
      scratch.changed.append(Candidate(token: token, logit: row.values[Int(token)]))
      row.values[Int(token)] = logit
    }
    for (token, count) in occurrences where Int(token) < row.values.count {
      var logit = row.values[Int(token)]
      logit = logit > 0 ? logit / parameters.repetitionPenalty : logit * parameters.repetitionPenalty
      logit -= parameters.frequencyPenalty * Float(count)
      if count > 0 { logit -= parameters.presencePenalty }
      change(token, to: logit)
    }
    guard generatedCount < parameters.minTokens else { return }
    for token in endTokens where Int(token) < row.values.count { change(token, to: -.infinity) }
  }

  private func choose(_ row: LogitsRow, position: Int, scratch: inout SamplerScratch) -> Int32? {
    guard let best = row.maximum() else { return nil }
    if parameters.isGreedy { return best.token }
    let uniform = Philox.uniform(seed: seed, choice: choice, position: position)
    let weights = TokenWeights(
      logits: row.values, best: best.logit, temperature: parameters.temperature, minimum: parameters.minP)
    if parameters.topK == 0, parameters.topP == 1 {
      return drawFromAll(weights, uniform: uniform, scratch: &scratch)
    }
    var kept = collect(row, weights: weights, scratch: &scratch)
    // Most likely first; kept is what top-p leaves of the total weight.
    scratch.candidates.sortByLogit()
    var before = 0.0
    var count = 0
    let target = kept * Double(parameters.topP)
    while count < scratch.candidates.count, count == 0 || before < target {
      before += scratch.candidates[count].weight
      count += 1
    }
    kept = before
    return draw(scratch.candidates.prefix(count), total: kept, uniform: uniform)
  }

  /// Fills `scratch.candidates` with the tokens that min-p and top-k leave, or as many of the likeliest as top-p can reach.
  /// - Returns: the weight of all that min-p and top-k leave.
  private func collect(_ row: LogitsRow, weights: TokenWeights, scratch: inout SamplerScratch) -> Double {
    if parameters.topK > 0 {
      let threshold = row.threshold(ofTop: parameters.topK, heap: &scratch.heap)
      return gather(row, above: threshold, weights: weights, into: &scratch.candidates)
    }
    let total = weights.sum(into: &scratch.blocks)
    // The likeliest hold nearly all of the weight: look down from the top until top-p is reached.
    var depth: Float = 4
    while true {
      let threshold = weights.best - depth * parameters.temperature
      let found = gather(row, above: threshold, weights: weights, into: &scratch.candidates)
      // Below 2^-126 of the likeliest there are no weights.
      if found >= total * Double(parameters.topP) || depth > 90 { return total }
      depth *= 2
    }
  }

  private func gather(
    _ row: LogitsRow, above threshold: Float, weights: TokenWeights, into candidates: inout [Candidate]
  ) -> Double {
    candidates.removeAll(keepingCapacity: true)
    var total = 0.0
    for index in 0..<row.values.count where row.values[index] >= threshold {
      let weight = weights.weight(index)
      guard weight > 0 else { continue }
      candidates.append(Candidate(token: Int32(index), logit: row.values[index], weight: weight))
      total += weight
    }
    return total
  }

  private func drawFromAll(_ weights: TokenWeights, uniform: Double, scratch: inout SamplerScratch) -> Int32? {
    let total = weights.sum(into: &scratch.blocks)
    let target = uniform * total
    // The block that the target falls into, the last one with any weight if rounding puts it behind all.
    var sum = 0.0
    var block = -1
    var before = 0.0
    for (index, weight) in scratch.blocks.enumerated() where weight > 0 {
      (block, before) = (index, sum)
      sum += weight
      if sum > target { break }
    }
    guard block >= 0 else { return nil }
    let start = block * TokenWeights.blockSize
    var last: Int32?
    for index in start..<min(start + TokenWeights.blockSize, weights.count) {
      let weight = weights.weight(index)
      guard weight > 0 else { continue }
      before += weight
      last = Int32(index)
      if before > target { return last }
    }
    return last
  }

  private func draw(_ candidates: ArraySlice<Candidate>, total: Double, uniform: Double) -> Int32? {
    let target = uniform * total
    var sum = 0.0
    for candidate in candidates {
      sum += candidate.weight
      if sum > target { return candidate.token }
    }
    return candidates.last?.token
  }

  /// Log-probabilities of the chosen token and of the most likely ones.
  func logprobs(
    _ values: UnsafeMutableBufferPointer<Float>, token: Int32, scratch: inout SamplerScratch
  ) -> (own: TokenLogprob, top: [TokenLogprob])? {
    guard let count = parameters.logprobs else { return nil }
    let row = LogitsRow(values: values)
    guard let best = row.maximum() else { return nil }
    let normaliser = row.logSumExp(maximum: best.logit)
    func logprob(_ token: Int32, _ logit: Float) -> TokenLogprob {
      TokenLogprob(token: token, logprob: Double(logit) - normaliser)
    }
    return (
      logprob(token, values[Int(token)]), row.top(count, heap: &scratch.heap).map { logprob($0.token, $0.logit) }
    )
  }
}

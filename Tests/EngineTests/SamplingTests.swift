import Engine
import Testing

#if canImport(Glibc)
  import Glibc
#elseif canImport(Darwin)
  import Darwin
#endif

@Suite struct SamplingTests {
  @Test func philoxEqualsTheReference() {
    // Known answers of the Random123 distribution (kat_vectors, philox4x32 10).
    #expect(
      Philox.block(key: SIMD2(0, 0), counter: SIMD4(0, 0, 0, 0))
        == SIMD4(0x6627_e8d5, 0xe169_c58d, 0xbc57_ac4c, 0x9b00_dbd8))
    #expect(
      Philox.block(key: SIMD2(repeating: .max), counter: SIMD4(repeating: .max))
        == SIMD4(0x408f_276d, 0x41c8_3b0e, 0xa20b_c7c6, 0x6d54_51fd))
    #expect(
      Philox.block(
        key: SIMD2(0xa409_3822, 0x299f_31d0), counter: SIMD4(0x243f_6a88, 0x85a3_08d3, 0x1319_8a2e, 0x0370_7344))
        == SIMD4(0xd16c_fe09, 0x94fd_cceb, 0x5001_e420, 0x2412_6ea1))
  }

  @Test func refusesWhatHasNoMeaning() {
    func parameter(_ body: () throws -> SamplingParameters) -> String? {
      do { _ = try body() } catch EngineError.invalidSampling(let parameter, _, _) { return parameter } catch {}
      return nil
    }
    #expect(parameter { try SamplingParameters(temperature: -1) } == "temperature")
    #expect(parameter { try SamplingParameters(temperature: .nan) } == "temperature")
    #expect(parameter { try SamplingParameters(topK: -2) } == "top_k")
    #expect(parameter { try SamplingParameters(topP: 0) } == "top_p")
    #expect(parameter { try SamplingParameters(topP: 1.01) } == "top_p")
    #expect(parameter { try SamplingParameters(minP: -0.1) } == "min_p")
    for penalty: Float in [0, 1e-38, 1e38, .nan] {
      #expect(parameter { try SamplingParameters(repetitionPenalty: penalty) } == "repetition_penalty")
    }
    #expect(parameter { try SamplingParameters(frequencyPenalty: 3) } == "frequency_penalty")
    #expect(parameter { try SamplingParameters(presencePenalty: .nan) } == "presence_penalty")
    #expect(parameter { try SamplingParameters(stop: ["a", ""]) } == "stop")
    #expect(parameter { try SamplingParameters(stopTokenIDs: [3, -1], minTokens: 2) } == "stop_token_ids")
    #expect(parameter { try SamplingParameters(maxTokens: -1) } == "max_tokens")
    #expect(parameter { try SamplingParameters(maxTokens: 3, minTokens: 4) } == "min_tokens")
    #expect(parameter { try SamplingParameters(logprobs: 21) } == "logprobs")
    #expect(parameter { try SamplingParameters() } == nil)
  }

  /// The definitions, spelled out: probabilities of all tokens after penalties, temperature, min-p, top-k and top-p.
  private func probabilities(
    _ logits: [Float], _ parameters: SamplingParameters, prompt: [Int32] = [], output: [Int32] = []
  ) -> [Double] {
    var logits = logits
    for token in Set(prompt + output).map({ Int($0) }) {
      let count = output.count { $0 == Int32(token) }
      logits[token] =
        logits[token] > 0
        ? logits[token] / parameters.repetitionPenalty : logits[token] * parameters.repetitionPenalty
      logits[token] -= parameters.frequencyPenalty * Float(count)
      if count > 0 { logits[token] -= parameters.presencePenalty }
    }
    func softmax(_ kept: [Bool]) -> [Double] {
      let best = zip(logits, kept).filter(\.1).map(\.0).max() ?? 0
      let weights = zip(logits, kept).map { $1 ? exp(Double(($0 - best) / parameters.temperature)) : 0 }
      return weights.map { $0 / weights.reduce(0, +) }
    }
    var kept = [Bool](repeating: true, count: logits.count)
    let start = softmax(kept)
    let best = start.max() ?? 0
    kept = start.map { $0 >= Double(parameters.minP) * best }
    if parameters.topK > 0 {
      let sorted = zip(logits, kept).filter(\.1).map(\.0).sorted(by: >)
      if parameters.topK < sorted.count { kept = zip(logits, kept).map { $1 && $0 >= sorted[parameters.topK - 1] } }
    }
    let limited = softmax(kept)
    var before = 0.0
    for index in limited.indices.sorted(by: { limited[$0] > limited[$1] }) {
      if before >= Double(parameters.topP) { kept[index] = false }
      before += limited[index]
    }
    return softmax(kept)
  }

  private func makeLogits(_ seed: UInt64, count: Int = 40) -> [Float] {
    (0..<count).map { index in
      let word = Philox.block(key: SIMD2(UInt32(seed), 9), counter: SIMD4(UInt32(index), 0, 0, 0)).x
      return Float(word >> 8) * 0x1p-22 - 2
    }
  }

  @Test func drawsFromTheDefinedDistribution() throws {
    let cases = [
      try SamplingParameters(temperature: 1), try SamplingParameters(temperature: 0.5),
      try SamplingParameters(temperature: 1.7, topK: 5), try SamplingParameters(temperature: 1, topP: 0.6),
      try SamplingParameters(temperature: 2, topK: 30, topP: 0.8), try SamplingParameters(temperature: 1, minP: 0.3),
      try SamplingParameters(temperature: 1, topK: 12, topP: 0.9, minP: 0.1),
      try SamplingParameters(temperature: 1, repetitionPenalty: 1.5, frequencyPenalty: 0.4, presencePenalty: 0.3),
      try SamplingParameters(temperature: 3, topP: 0.99),
    ]
    let drawCount = 4_000
    for (index, parameters) in cases.enumerated() {
      let logits = makeLogits(UInt64(index))
      let (prompt, output): ([Int32], [Int32]) = ([1, 2, 3, 3], [3, 4, 4, 4])
      let expected = probabilities(
        logits, parameters, prompt: parameters.repetitionPenalty == 1 ? [] : prompt,
        output: parameters.repetitionPenalty == 1 ? [] : output)
      var counts = [Int](repeating: 0, count: logits.count)
      for draw in 0..<drawCount {
        counts[
          Int(
            SamplerProbe.sample(logits, parameters, seed: UInt64(index), position: draw, prompt: prompt, output: output)
              ?? 0)] += 1
      }
      // Five standard deviations, and nothing where nothing may be.
      for token in logits.indices {
        let mean = expected[token] * Double(drawCount)
        let deviation = (mean * (1 - expected[token])).squareRoot()
        #expect(abs(Double(counts[token]) - mean) <= 5 * deviation + 1e-9, "case \(index), token \(token)")
      }
    }
  }

  @Test func weightsAreExponentials() {
    #expect(SamplerProbe.weight(3, best: 3, temperature: 0.7) == 1)
    #expect(SamplerProbe.weight(-.infinity, best: 3, temperature: 1) == 0)
    #expect(SamplerProbe.weight(-100, best: 0, temperature: 1) == 0)
    var worst = 0.0
    for step in 0..<8600 {
      let x = -Float(step) * 0.01
      worst = max(worst, abs(SamplerProbe.weight(x, best: 0, temperature: 1) / exp(Double(x)) - 1))
    }
    #expect(worst < 4e-7)
  }

  @Test func drawsFromManyTokensInBlocks() throws {
    // 1,000 tokens, of which the first of each ten is likelier: counts by decade are even.
    let logits = (0..<1000).map { Float($0 % 10 == 0 ? 2 : 0) }
    for parameters in [try SamplingParameters(temperature: 1), try SamplingParameters(temperature: 1, topP: 0.999999)] {
      var counts = [Int](repeating: 0, count: 10)
      let draws = 4000
      for draw in 0..<draws {
        let token = try #require(SamplerProbe.sample(logits, parameters, seed: 8, position: draw))
        counts[Int(token) / 100] += 1
      }
      #expect(counts.allSatisfy { abs($0 - draws / 10) < 100 }, "\(counts)")
    }
  }

  @Test func greedyTakesTheFirstOfEqualLogits() throws {
    var logits = [Float](repeating: -1, count: 1003)
    for index in [700, 701, 1002] { logits[index] = 2 }
    #expect(SamplerProbe.sample(logits, .greedy, seed: 0, position: 0) == 700)
    logits[1002] = 2.5
    #expect(SamplerProbe.sample(logits, .greedy, seed: 0, position: 0) == 1002)
    logits[3] = -.infinity
    #expect(SamplerProbe.sample(logits, .greedy, seed: 0, position: 0) == 1002)
    logits[5] = .nan
    #expect(SamplerProbe.sample(logits, .greedy, seed: 0, position: 0) == nil)
    #expect(SamplerProbe.sample([-.infinity, -.infinity], .greedy, seed: 0, position: 0) == nil)
  }

  /// Stop tokens can't be chosen before `minTokens`, those beyond the vocabulary least of all.
  @Test func stopTokensAreHeldBack() throws {
    let parameters = try SamplingParameters(stopTokenIDs: [1, 5000], minTokens: 2)
    #expect(SamplerProbe.sample([0, 3, 2], parameters, seed: 0, position: 0) == 2)
    #expect(SamplerProbe.sample([0, 3, 2], parameters, seed: 0, position: 0, output: [2, 2]) == 1)
  }

  @Test func topKKeepsTies() throws {
    let parameters = try SamplingParameters(temperature: 1, topK: 2)
    let drawn = Set((0..<500).map { SamplerProbe.sample([1, 3, 2, 2, 2, 0], parameters, seed: 4, position: $0) })
    #expect(drawn == [1, 2, 3, 4])
  }

  @Test func logprobsAreThoseOfTheModel() throws {
    let logits = makeLogits(77)
    let parameters = try SamplingParameters(temperature: 0.3, topK: 3, repetitionPenalty: 2, logprobs: 5)
    let result = try #require(SamplerProbe.logprobs(logits, parameters, token: 8))
    let total = log(logits.reduce(0.0) { $0 + exp(Double($1)) })
    #expect(abs(result.own.logprob - (Double(logits[8]) - total)) < 1e-9)
    let best = logits.indices.sorted { logits[$0] > logits[$1] }.prefix(5)
    #expect(result.top.map(\.token) == best.map { Int32($0) })
  }

  @Test func equalSeedsGiveEqualDraws() throws {
    let parameters = try SamplingParameters(temperature: 1)
    let logits = makeLogits(5)
    func draws(_ seed: UInt64) -> [Int32?] {
      (0..<50).map { SamplerProbe.sample(logits, parameters, seed: seed, position: $0) }
    }
    #expect(draws(1) == draws(1))
    #expect(draws(1) != draws(2))
  }
}

import Engine
import Testing
import TextCodec

@Suite struct TextTests {
  private func engine() throws -> (engine: Engine, tokenizer: Tokenizer) {
    let tokenizer = try Tokenizer(contentsOf: TestModels.directory("tiny-qwen3"))
    let model = FakeModel(vocabularySize: 4000)
    let engine = try Engine(
      LoadedModel(model: model, tokenizer: tokenizer, fingerprint: "text", arithmetic: "fake"),
      configuration: try configure())
    return (engine, tokenizer)
  }

  private struct Answer: Equatable {
    var text = ""
    var tokens: [Int32] = []
    var matchedStop: String?
    var reason: FinishReason?
  }

  private func run(_ engine: Engine, stop: [String]) async throws -> Answer {
    var answer = Answer()
    let sampling = try SamplingParameters(stop: stop, maxTokens: 60)
    for try await event in engine.generate(Request("Once upon a time", sampling: sampling)) {
      switch event {
      case .token(let token):
        answer.text += token.text
        answer.tokens.append(token.id)
      case .finished(let completion):
        answer.text += completion.text
        answer.matchedStop = completion.matchedStop
        answer.reason = completion.reason
      }
    }
    return answer
  }

  @Test func theStreamedTextIsTheDecodedText() async throws {
    let (engine, tokenizer) = try engine()
    let answer = try await run(engine, stop: [])
    #expect(answer.text == tokenizer.decode(answer.tokens, skipSpecialTokens: true))
    #expect(answer.reason == .length)
  }

  @Test func stopStringsEndTheTextWithoutAppearingInIt() async throws {
    let (engine, _) = try engine()
    let free = try await run(engine, stop: [])
    // Stop strings from the middle of the answer, so that they straddle tokens.
    let characters = Array(free.text)
    for start in stride(from: 3, to: characters.count - 6, by: 5) {
      let stop = String(characters[start..<start + 4])
      let range = try #require(free.text.firstRange(of: stop))
      let answer = try await run(engine, stop: ["never seen in any text", stop])
      #expect(answer.text == String(free.text[..<range.lowerBound]))
      #expect(answer.matchedStop == stop)
      #expect(answer.reason == .stop)
    }
    let missed = try await run(engine, stop: ["never seen in any text"])
    #expect(missed.text == free.text && missed.reason == .length)
  }
}

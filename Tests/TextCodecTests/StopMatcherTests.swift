import TestSupport
import Testing
import TextCodec

@Suite struct StopMatcherTests {
  /// What the matcher gives for a text in parts: the text before the match, and the match.
  private func run(_ stops: [String], _ parts: [String]) throws -> (text: String, match: StopMatcher.Match?) {
    var matcher = try StopMatcher(stops)
    var text = parts.reduce(into: "") { $0 += matcher.append($1) }
    text += matcher.finish()
    return (text, matcher.match)
  }

  @Test func findsAStopAcrossParts() throws {
    var matcher = try StopMatcher(["END"])
    #expect(matcher.append("one E") == "one ")
    #expect(matcher.append("N") == "")
    #expect(matcher.append("E") == "EN")
    #expect(matcher.append("ND and more") == "")
    #expect(matcher.match == StopMatcher.Match(stopString: 0, offset: 6))
    #expect(matcher.append("END") == "" && matcher.finish() == "")
  }

  @Test func heldTextComesOutAtTheEnd() throws {
    var matcher = try StopMatcher(["\n\nUser:"])
    #expect(matcher.append("a\n\nUs") == "a")
    #expect(matcher.finish() == "\n\nUs")
    #expect(matcher.match == nil)
  }

  @Test func overlappingStops() throws {
    #expect(try run(["abcd", "bc"], ["xabcd"]).text == "xa")
    #expect(try run(["c", "abc"], ["xabc"]) == ("x", StopMatcher.Match(stopString: 1, offset: 1)))
    #expect(try run(["aab"], ["aaab"]) == ("a", StopMatcher.Match(stopString: 0, offset: 1)))
    #expect(try run(["é!"], ["é", "é", "!"]) == ("é", StopMatcher.Match(stopString: 0, offset: 2)))
    #expect(try run([], ["abc"]) == ("abc", nil))
    #expect(throws: TextCodecError.self) { try StopMatcher(["a", ""]) }
  }

  /// Random texts over a small alphabet, cut at random: as a search of the whole text, and never a byte too much or
  /// late.
  @Test func equalsASearchOfTheWholeText() throws {
    var random = SplitMix(seed: 3)
    let letters = ["a", "b", "é", "€"]
    func word(_ lengths: ClosedRange<Int>) -> String {
      (0..<Int.random(in: lengths, using: &random)).map { _ in letters[Int.random(in: 0..<4, using: &random)] }.joined()
    }
    for _ in 0..<3_000 {
      let stops = (0..<Int.random(in: 1...3, using: &random)).map { _ in word(1...4) }
      let parts = (0..<6).map { _ in word(0...3) }
      let bytes = Array(parts.joined().utf8)
      var expected: StopMatcher.Match?
      for end in bytes.indices where expected == nil {
        for (index, stop) in stops.enumerated() where bytes[...end].reversed().starts(with: stop.utf8.reversed()) {
          let offset = end + 1 - stop.utf8.count
          if offset < expected?.offset ?? .max { expected = StopMatcher.Match(stopString: index, offset: offset) }
        }
      }
      let found = try run(stops, parts)
      #expect(found.match == expected)
      #expect(Array(found.text.utf8) == Array(bytes[..<(expected?.offset ?? bytes.count)]))

      // Text that no stop string can begin in is given out at once.
      var matcher = try StopMatcher(stops)
      var given = 0
      var seen: [UInt8] = []
      for part in parts {
        given += matcher.append(part).utf8.count
        seen += part.utf8
        if matcher.match != nil { break }
        let held = stops.map { stop in
          (1..<max(stop.utf8.count, 1)).last { seen.reversed().starts(with: stop.utf8.prefix($0).reversed()) } ?? 0
        }
        #expect(given == seen.count - (held.max() ?? 0))
      }
    }
  }
}

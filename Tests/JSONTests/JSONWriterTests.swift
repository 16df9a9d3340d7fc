import JSON
import TestSupport
import Testing

@Suite struct JSONWriterTests {
  @Test func writesCompactly() {
    let value: JSONValue = ["a": [1, 2.5, true, nil], "b": ["c": "d"], "e": [:], "f": []]
    #expect(value.serialized() == #"{"a":[1,2.5,true,null],"b":{"c":"d"},"e":{},"f":[]}"#)
  }

  @Test func writesPrettily() {
    let value: JSONValue = ["shape": [1, 2], "list": ["a", ["b": 1]], "e": [:]]
    #expect(
      value.serialized(pretty: true) == """
        {
          "shape": [1, 2],
          "list": [
            "a",
            {
              "b": 1
            }
          ],
          "e": {}
        }
        """)
  }

  @Test func escapesWhatMustBe() {
    #expect(JSONValue.string("\"\\/\u{8}\n\r\t\u{1F}\0é😀").serialized() == #""\"\\/\u0008\n\r\t\u001f\u0000é😀""#)
  }

  @Test func nonFiniteNumbersBecomeNull() {
    #expect(([.number(.nan), .number(.infinity), .number(-.infinity)] as JSONValue).serialized() == "[null,null,null]")
  }

  @Test func doublesReadBackEqual() throws {
    var generator = SplitMix(seed: 3)
    for _ in 0..<20_000 {
      let value = Double(bitPattern: generator.next())
      guard value.isFinite else { continue }
      let again = try JSONValue.parse(JSONValue.number(value).serialized())
      #expect(again.doubleValue?.bitPattern == value.bitPattern || value == 0)
    }
    for value in [Float(0.1), .pi, .leastNonzeroMagnitude, 1.5e-5] {
      #expect(try JSONValue.parse(JSONValue.number(Double(value)).serialized()).doubleValue.map { Float($0) } == value)
    }
  }
}

import JSON
import TestSupport
import Testing
import TextCodec

@Suite struct ChatTemplateErrorTests {
  private func failure(_ source: String) -> (line: Int, reason: String)? {
    do {
      _ = try ChatTemplate(source: source).render(
        messages: [ChatMessage(role: "user", content: "Hi")], addGenerationPrompt: true)
      return nil
    } catch {
      guard case .template(let line, let reason) = error else { return nil }
      return (line, reason)
    }
  }

  @Test func errorsNameTheLine() throws {
    #expect(try #require(failure("a\n\n{{ missing.x }}")).line == 3)
    #expect(try #require(failure("{% if x %}\n{{ 1 }}\n")).reason.contains("endif"))
    let unsupported = try #require(failure("\n{% include 'x' %}"))
    #expect(unsupported.line == 2 && unsupported.reason.contains("'include' is not supported"))
    #expect(try #require(failure("{{ x | wordwrap }}")).reason.contains("'wordwrap' is not supported"))
    #expect(try #require(failure("{{ 1 is escaped }}")).reason.contains("'escaped' is not supported"))
    #expect(try #require(failure("{{ strftime_now('%Y') }}")).reason.contains("strftime_now"))
    #expect(try #require(failure("{{ raise_exception('only two roles') }}")).reason == "only two roles")
    #expect(try #require(failure("{% for m in messages %}\n{{ m.content + m.nothing }}{% endfor %}")).line == 2)
  }

  /// Nothing that a hostile template does may overflow the stack or take all memory.
  @Test func hostileTemplates() throws {
    let many = 20_000
    func repeated(_ text: String) -> String { String(repeating: text, count: many) }
    let sources = [
      "{{ " + repeated("(") + "1" + repeated(")") + " }}", "{{ " + repeated("[") + "1" + repeated("]") + " }}",
      "{{ " + repeated("not ") + "1 }}", "{{ " + repeated("-") + "1 }}", "{{ 1" + repeated(" + 1") + " }}",
      "{{ 1" + repeated(" and 1") + " }}", "{{ a" + repeated(".b") + " }}", "{{ 1" + repeated(" | int") + " }}",
      "{{ 1" + repeated(" if 1") + " }}", repeated("{% if 1 %}") + repeated("{% endif %}"),
      repeated("{% for x in [1] %}"),
      "{{ " + repeated("{1:") + " }}", "{{ 1" + repeated(" if 1 else 1") + " }}", "{{ x" + repeated("(x") + " }}",
      "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}",
      "{% macro m(n) %}{% if n %}{% for i in [1] %}{{ m(n - 1) }}{% endfor %}{% endif %}{% endmacro %}{{ m(5000) }}",
      "{% set ns = namespace(x='ab') %}{% for i in range(60) %}{% set ns.x = ns.x + ns.x %}{% endfor %}",
      "{% set ns = namespace(x=[1]) %}{% for i in range(60) %}{% set ns.x = ns.x + ns.x %}{% endfor %}",
      "{% set ns = namespace(x=1) %}{% for i in range(99999) %}{% set ns.x = [ns.x] %}{% endfor %}{{ ns.x | tojson }}",
      "{% set ns = namespace(x=1) %}{% for i in range(99) %}{% set ns.x = {'a': ns.x, 'b': ns.x} %}{% endfor %}{{ ns.x }}",
      repeated("{% set x = [x] %}"), "{% macro m(x) %}{{ m([[[x]]]) }}{% endmacro %}{{ m(1) }}",
      "{{ " + String(repeating: "(", count: 40) + "1"
        + String(repeating: String(repeating: "+ 1", count: 90) + ")", count: 40) + " }}",
      "{% for i in range(99999999999) %}{% endfor %}", "{{ 'x' * 99999999999 }}", "{{ 9223372036854775807 + 1 }}",
      "{{ 9223372036854775807 * 2 }}", "{{ 10 ** 30 }}", "{{ (-9223372036854775807 - 1) // -1 }}",
      "{{ 99999999999999999999 }}", "{{ [1][::0] }}", "{{ 'a' | indent(99999999999) | length }}{{ x.y }}",
      "{{ -(-9223372036854775807 - 1) }}", "{{ 'abc' | replace('', 'x' * 9000000) }}",
      "{{ range(0, 9223372036854775807, 9223372036854775806) | list | length }}{{ x.y }}",
    ]
    for source in sources {
      let found = failure(source)
      #expect(found != nil, "\(source.prefix(80))")
    }
  }

  /// Damaged templates render or fail; they don't trap.
  @Test func damagedTemplates() throws {
    var random = SplitMix(seed: 5)
    let names = ["chatml_tools.jinja", "headers.jinja", "bars.jinja"]
    let sources = try names.map { Array(try Resources.text(of: "templates/" + $0).unicodeScalars) }
    let insertions = [
      "{{", "}}", "{%", "%}", "-", "(", ")", "[", "]", "|", "'", "\"", ".", " if ", " is ", " not ", ":", "\\", "{#",
      "0", "*", "\n",
    ]
    let messages = [ChatMessage(role: "system", content: "s"), ChatMessage(role: "user", content: "u")]
    var rendered = 0
    for round in 0..<1_500 {
      var scalars = sources[round % sources.count]
      for _ in 0...round % 3 {
        let place = Int.random(in: 0..<scalars.count, using: &random)
        switch Int.random(in: 0..<4, using: &random) {
        case 0: scalars.removeSubrange(place..<min(place + Int.random(in: 1...12, using: &random), scalars.count))
        case 1:
          scalars.insert(contentsOf: Array((insertions.randomElement(using: &random) ?? "").unicodeScalars), at: place)
        case 2: scalars.removeLast(scalars.count - max(place, 1))
        default: scalars.swapAt(place, Int.random(in: 0..<scalars.count, using: &random))
        }
      }
      var view = String.UnicodeScalarView()
      view.append(contentsOf: scalars)
      do throws(TextCodecError) {
        _ = try ChatTemplate(source: String(view), bosToken: "<s>").render(
          messages: messages, addGenerationPrompt: true, extra: ["tools": [["name": "f"]]])
        rendered += 1
      } catch { #expect(!error.description.isEmpty) }
    }
    #expect(rendered > 50)
  }
}

@Suite struct ChatTemplateLoadingTests {
  private let messages = [ChatMessage(role: "user", content: "Hi")]

  @Test func theShippedModelsTemplate() throws {
    let template = try ChatTemplate(contentsOf: Resources.tinyQwen3)
    let expected = "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"
    #expect(try template.render(messages: messages, addGenerationPrompt: true) == expected)
    #expect(try ChatTemplate.chatML().render(messages: messages, addGenerationPrompt: true) == expected)
    let tokenizer = try Tokenizer(contentsOf: Resources.tinyQwen3)
    #expect(tokenizer.encode(expected, addSpecialTokens: false).filter(tokenizer.isSpecial) == [4094, 4095, 4094])
  }

  @Test func aFolderWithoutATemplate() throws {
    #expect(throws: TextCodecError.noChatTemplate(directory: Resources.path)) {
      try ChatTemplate(contentsOf: Resources.path)
    }
  }

  @Test func loadingPrefersTheTemplateFile() throws {
    let folder = try TemporaryFolder()
    let config =
      #"{"bos_token": {"content": "<s>", "lstrip": false}, "eos_token": null, "chat_template": "#
      + #"[{"name": "default", "template": "D{{ bos_token }}{{ eos_token }}"}, {"name": "tool_use", "template": "T"}]}"#
    try folder.write("tokenizer_config.json", config)
    let named = try ChatTemplate(contentsOf: folder.path)
    #expect(try named.render(messages: messages, addGenerationPrompt: true) == "D<s>")
    #expect(try named.render(messages: messages, addGenerationPrompt: true, extra: ["tools": ["f"]]) == "T")
    try folder.write("chat_template.jinja", "J{{ bos_token }}{{ messages[0].content }}\n")
    let file = try ChatTemplate(contentsOf: folder.path)
    #expect(try file.render(messages: messages, addGenerationPrompt: true, extra: ["tools": ["f"]]) == "J<s>Hi")
    try folder.write("tokenizer_config.json", "{")
    #expect(throws: TextCodecError.self) { try ChatTemplate(contentsOf: folder.path) }
  }
}

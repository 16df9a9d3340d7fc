import JSON
import Testing
import TextCodec

@Suite struct ChatTemplateGoldenTests {
  let golden: JSONValue

  init() throws { golden = try JSONValue.parse(contentsOf: Resources.path + "/template_golden.json") }

  /// What Jinja renders, we render; where it fails, we fail with a line.
  private func check(_ expected: JSONValue?, _ name: String, _ render: () throws -> String) {
    do {
      let text = try render()
      guard let expected = expected?.stringValue else {
        Issue.record("\(name)\nexpected an error, found \(text.debugDescription)")
        return
      }
      if !text.utf8.elementsEqual(expected.utf8) {
        Issue.record("\(name)\nexpected \(expected.debugDescription)\nfound    \(text.debugDescription)")
      }
    } catch {
      if expected?.stringValue != nil { Issue.record("\(name)\n\(error)") }
      guard case .template(let line, let reason)? = error as? TextCodecError else {
        Issue.record("\(name): \(error)")
        return
      }
      #expect(line > 0 && !reason.isEmpty)
    }
  }

  @Test func snippets() throws {
    let snippets = try #require(golden["snippets"]?.arrayValue)
    #expect(snippets.count > 120)
    let members = try #require(golden["variables"]?.objectValue)
    var variables: [String: JSONValue] = [:]
    for (name, value) in members { variables[name] = value }
    let messages = (members["messages"]?.arrayValue ?? []).compactMap(\.objectValue).map { ChatMessage(fields: $0) }
    for snippet in snippets {
      let source = try #require(snippet["template"]?.stringValue)
      check(snippet["text"], source) {
        try ChatTemplate(source: source).render(messages: messages, addGenerationPrompt: true, extra: variables)
      }
    }
  }

  @Test func wholeTemplates() throws {
    let conversations = try #require(golden["conversations"]?.arrayValue).map { conversation in
      (conversation.arrayValue ?? []).compactMap(\.objectValue).map { ChatMessage(fields: $0) }
    }
    let renderings = try #require(golden["renderings"]?.arrayValue)
    #expect(renderings.count >= 400 && renderings.count { $0["text"]?.stringValue != nil } > 200)
    var templates: [String: ChatTemplate] = [:]
    for rendering in renderings {
      let file = try #require(rendering["file"]?.stringValue)
      let number = try #require(rendering["conversation"]?.intValue)
      let template =
        try templates[file]
        ?? ChatTemplate(source: Resources.text(of: "templates/" + file), bosToken: "<s>", eosToken: "</s>")
      templates[file] = template
      var extra: [String: JSONValue] = [:]
      for (name, value) in rendering["extra"]?.objectValue ?? JSONObject() { extra[name] = value }
      check(rendering["text"], "\(file), conversation \(number), \(extra.keys)") {
        try template.render(
          messages: conversations[number], addGenerationPrompt: rendering["prompt"]?.boolValue ?? false, extra: extra)
      }
    }
  }
}

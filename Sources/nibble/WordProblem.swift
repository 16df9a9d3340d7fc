import Engine
import JSON
import TextCodec

/// A file with one JSON value a line.
enum JSONLines {
  /// - Throws: `CommandFailure` for a file without lines, and for a line that is no JSON.
  static func read(_ path: String, limit: Int?) throws -> [JSONValue] {
    let lines = try Console.readFile(path).split(separator: "\n", omittingEmptySubsequences: false).enumerated()
      .filter { !$0.element.isEmpty }.prefix(limit ?? .max)
    guard !lines.isEmpty else { throw CommandFailure(.data, "'\(path)' is empty; expected one JSON object a line") }
    return try lines.map { number, line in
      do throws(JSONError) { return try JSONValue.parse(bytes: Array(line.utf8)) } catch {
        throw CommandFailure(.data, "'\(path)', line \(number + 1): \(error); expected one JSON object a line")
      }
    }
  }
}

/// A problem of a file with one {"prompt": ..., "answer": ...} a line; the number after #### is what a model answers.
struct WordProblem {
  let prompt: [Int32]
  let answer: String

  /// Problems as a user's message in the model's chat template, or as they are where there is none.
  static func read(_ path: String, limit: Int?, plan: RunPlan) throws -> [WordProblem] {
    let template = try plan.chatTemplate()
    return try JSONLines.read(path, limit: limit).map { object in
      guard let prompt = object["prompt"]?.stringValue, let answer = object["answer"]?.stringValue else {
        throw CommandFailure(.data, "'\(path)' has a line without 'prompt' or 'answer'; expected both in every line")
      }
      let text = try template?.render(
        messages: [ChatMessage(role: "user", content: prompt)], addGenerationPrompt: true)
      return WordProblem(
        prompt: plan.tokenizer.encode(text ?? prompt, addSpecialTokens: text == nil, allowSpecial: true),
        answer: answer)
    }
  }

  /// What follows the last #### of an answer.
  static func result(_ text: String) -> String {
    guard let mark = text.ranges(of: "####").last else { return "" }
    return String(text[mark.upperBound...].drop { $0 == " " }.prefix { $0 != "\n" && $0 != " " })
  }
}
